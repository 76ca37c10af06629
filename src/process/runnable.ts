/**
 * Looks whether a command can be started before anything is started for it. The shell that stands in for the
 * command would only answer with exit code 127, which a command may also mean itself.
 */
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { resolve } from 'node:path';

import { quote, ReceiverError } from '../errors.js';

/** Where a program is looked for when the environment names no place. */
const defaultPath = '/usr/local/bin:/usr/bin:/bin';

/** Throws SPAWN unless `program` is an executable file, found as a shell would find it, and `cwd` a directory. */
export async function assertRunnable(
  program: string,
  { cwd, path = defaultPath }: { readonly cwd: string; readonly path?: string | undefined },
): Promise<void> {
  if (!(await isDirectory(cwd)))
    throw new ReceiverError('SPAWN', 'the working directory of a program is missing', { program, cwd });
  const folders = program.includes('/') ? [''] : path.split(':');
  // A leading dash would be an option of the shell's exec.
  for (const folder of program.startsWith('-') ? [] : folders) {
    if (await isExecutable(resolve(cwd, folder, program))) return;
  }
  const name = program.slice(program.lastIndexOf('/') + 1);
  throw new ReceiverError('SPAWN', `the program ${quote(name)} cannot be run`, { program, cwd, path });
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/** Whether `file` is an executable file, and not a directory, which has the same bit. */
export async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}
