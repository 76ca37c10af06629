#!/usr/bin/env node
/**
 * The command line: finds the command, and turns what goes wrong into one sentence and an exit code. A stack trace
 * is for us, not for somebody who gave a port that is taken.
 */
import { isReceiverError, messageOf, systemCode } from '../errors.js';
import { serve, serveUsage } from './serve.js';

const usage = `Usage: koa-esphome-receiver <command>

Commands:
${serveUsage}

  --help    show this
`;

const commands: Readonly<Record<string, (args: string[]) => Promise<number>>> = { serve };

async function main([name, ...args]: string[]): Promise<number> {
  if (name === '--help' || name === '-h' || args.includes('--help')) {
    process.stdout.write(usage);
    return 0;
  }
  const command = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    process.stderr.write(usage);
    return 2;
  }
  return command(args);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const code = systemCode(error) ?? '';
  const misused = code.startsWith('ERR_PARSE_ARGS_');
  const isSystem = error instanceof Error && 'syscall' in error;
  if (!isReceiverError(error) && !misused && !isSystem) throw error;
  process.stderr.write(`koa-esphome-receiver: ${messageOf(error)}\n`);
  process.exitCode = misused ? 2 : 1;
}
