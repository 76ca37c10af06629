#!/usr/bin/env node
/**
 * The command line: finds the command, and reports an error as one sentence and an exit code. A stack trace is for
 * developers, not for a user whose port is in use.
 */
import { readFileSync } from 'node:fs';

import { isReceiverError, messageOf, quote, systemCode } from '../errors.js';
import { serveHelp } from './flags.js';
import { serve } from './serve.js';

interface Command {
  readonly summary: string;
  help(): string;
  /** Resolves to the exit code. */
  run(args: string[]): Promise<number>;
}

const commands: Readonly<Record<string, Command>> = {
  serve: { summary: 'a build server for other dashboards', help: serveHelp, run: serve },
};

const usage = `Usage: koa-esphome-receiver <command>

Commands:
${Object.entries(commands)
  .map(([name, { summary }]) => `  ${name.padEnd(10)}${summary}`)
  .join('\n')}

  --help      prints this help; after a command, the help of that command
  --version   prints the name and the version of this program
`;

async function main([name, ...args]: string[]): Promise<number> {
  const command = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined;
  const isHelp = [name, ...args].some((word) => word === '--help' || word === '-h');
  if (name === '--version') process.stdout.write(`${nameAndVersion()}\n`);
  else if (isHelp) process.stdout.write(command?.help() ?? usage);
  else if (command !== undefined) return command.run(args);
  else {
    const unknown = name === undefined ? '' : `koa-esphome-receiver: unknown command ${quote(name)}\n\n`;
    process.stderr.write(unknown + usage);
    return 2;
  }
  return 0;
}

function nameAndVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    readonly name: string;
    readonly version: string;
  };
  return `${manifest.name} ${manifest.version}`;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const code = systemCode(error) ?? '';
  const misused = code.startsWith('ERR_PARSE_ARGS_') || isReceiverError(error, 'OPTIONS');
  const isSystem = error instanceof Error && 'syscall' in error;
  if (!isReceiverError(error) && !misused && !isSystem) throw error;
  const file = isReceiverError(error) ? error.facts['file'] : undefined;
  const where = typeof file === 'string' ? ` (${file})` : '';
  const help = misused ? '\nkoa-esphome-receiver serve --help lists all flags' : '';
  process.stderr.write(`koa-esphome-receiver: ${messageOf(error)}${where}${help}\n`);
  process.exitCode = misused ? 2 : 1;
}
