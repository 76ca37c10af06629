/**
 * A compiler that says when it begins and when it ends, and leaves a firmware that the benchmark has put ready. The
 * tree around it is the stand-in's; a shell in front of it prints the first line, because node takes 40 ms to start.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { standInEsphome } from '../../src/testing/index.js';
import { node } from './inputs.js';

export const firstLine = 'bench: compiler started';
export const lastLine = 'bench: compiler ends';

export interface Compiler {
  /** The program, for the receiver's option. */
  readonly command: string;
  /** Makes this the firmware of the next builds. */
  leaves(firmware: Buffer): Promise<void>;
}

export async function makeCompiler(directory: string): Promise<Compiler> {
  const command = join(directory, 'esphome');
  const firmware = join(directory, 'firmware');
  await writeFile(firmware, 'small');
  await writeFile(command, scriptOf(firmware), { mode: 0o755 });
  return { command, leaves: (bytes) => writeFile(firmware, bytes) };
}

function scriptOf(firmware: string): string {
  const standIn = standInEsphome.map((word) => `'${word}'`).join(' ');
  return `#!/bin/sh
case " $* " in
  *' version '* | *' --version '*) echo 'Version: 2026.10.0'; exit ;;
  *' compile '*) echo '${firstLine}' ;;
  *) exec ${standIn} "$@" ;;
esac
${standIn} "$@" && cp '${firmware}' "$ESPHOME_DATA_DIR/build/${node}/build/${node}.bin" || exit
echo '${lastLine}'
`;
}
