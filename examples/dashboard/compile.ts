/** Compiles one configuration in the environment of `composeEnvironment`, with the ESPHome of this machine if there is one. */
import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { promisify } from 'node:util';

import { findEsphome, type EsphomeCommand } from '../../src/esphome/command.js';
import type { Receiver } from 'koa-esphome-receiver';
import { standInEsphome } from 'koa-esphome-receiver/testing';

export interface Compiler {
  readonly command: EsphomeCommand;
  /** For people. */
  readonly name: string;
}

/** `ESPHOME_COMMAND`, or `esphome` on the PATH, or the stand-in. */
export async function findCompiler(): Promise<Compiler> {
  const command = await findEsphome({ environment: process.env });
  if (command !== null) return { command, name: command.join(' ') };
  if (process.env['ESPHOME_COMMAND']) throw new Error('ESPHOME_COMMAND does not name a program');
  const name = 'the stand-in, not a real compiler (set ESPHOME_COMMAND to use one)';
  return { command: standInEsphome, name };
}

/** The path of the compiled program. Throws with the compiler's output if the compile fails. */
export async function compile(
  { command }: Compiler,
  { paths, composeEnvironment }: Receiver,
  configuration: string,
): Promise<string> {
  const env = composeEnvironment(configuration);
  const isRemote = paths.parseConfiguration(configuration) !== null;
  for (const directory of isRemote ? [env['HOME'], env['TMPDIR']] : []) {
    if (directory !== undefined) await mkdir(directory, { recursive: true });
  }
  const [program, ...args] = command;
  const yaml = paths.resolveConfigPath(configuration);
  const { stdout, stderr } = await promisify(execFile)(program, [...args, 'compile', yaml], { env });
  const made = /Successfully compiled program to path '(.+)'/.exec(stdout + stderr)?.[1];
  if (made === undefined) throw new Error(`the compiler did not name its program:\n${stdout}${stderr}`);
  return made;
}
