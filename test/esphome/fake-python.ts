/**
 * A shell script that acts as a Python: it prints its version, makes an environment, and its
 * pip "installs" an esphome that prints its version. It logs each action, so that a test can count installations.
 */
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface FakePython {
  readonly path: string;
  /** The actions so far, as in ["venv", "pip"]. */
  deeds(): Promise<string[]>;
}

/** Shell code: `pip` runs before its pip installs, `esphome` is what the installed one does besides `version`. */
export async function fakePython(
  directory: string,
  { name = 'python3.13', version = '3.13.7', pip = '', prints = 'Version: 2026.10.0', esphome = '' } = {},
): Promise<FakePython> {
  const path = join(directory, name);
  const notes = join(directory, `${name}.deeds`);
  const program = join(directory, `${name}.esphome`);
  await writeFile(program, `#!/bin/sh\n[ "$1" = version ] && exec echo "${prints}"\n${esphome}\n`);
  const script = `#!/bin/sh
case "$*" in
  *ensurepip*) echo ${version} ;;
  "-m venv "*) echo venv >> '${notes}'; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip install "*)
    echo pip >> '${notes}'
    ${pip}
    esphome="$(dirname "$0")/esphome"
    cp '${program}' "$esphome"
    chmod +x "$esphome"
    echo "Successfully installed" ;;
esac
`;
  await writeFile(path, script);
  await chmod(path, 0o755);
  return { path, deeds: async () => (await readFile(notes, 'utf8')).trim().split('\n') };
}

/** A program that prints a line to stderr and fails, as a pyenv shim does for a version that is not selected. */
export async function brokenPython(path: string, complaint: string): Promise<void> {
  await writeFile(path, `#!/bin/sh\necho '${complaint}' >&2\nexit 127\n`);
  await chmod(path, 0o755);
}
