/**
 * The flags of `serve`: options of the receiver under their own names, and four that only the program has. The parser and
 * `--help` both use the declarations here.
 */
import { parseArgs } from 'node:util';

import * as z from 'zod';

import { ReceiverError } from '../errors.js';
import { mountOptions } from '../koa/options.js';
import { coreOptions } from '../options/core.js';
import { parseOptions } from '../options/parse.js';
import { factsOf, option } from '../options/schema.js';
import { defaultText, limitsText, wrap } from '../options/text.js';

const port = () => z.int().min(0).max(65_535);

export const serveOptions = {
  port: option(port().default(6055), {
    summary: 'Port on which dashboards connect; 0 takes a free one.',
    isPort: true,
  }),
  host: option(z.string().min(1).default('0.0.0.0'), {
    summary: 'Address on which that port is bound.',
    expected: 'an address',
  }),
  esphome: coreOptions.esphome,
  takeOver: coreOptions.takeOver,
  newIdentity: coreOptions.newIdentity,
  lanes: coreOptions.lanes,
  gitConfig: coreOptions.gitConfig,
  connectBack: coreOptions.connectBack,
  announce: mountOptions.announce,
  admin: option(port().optional(), {
    summary:
      'Port of 127.0.0.1 for the admin routes, to pair more dashboards, to revoke them and to free disk space.',
    details: 'It needs the package `koa`.',
    defaultText: 'none',
    isPort: true,
  }),
  json: option(z.boolean().default(false), {
    summary: 'Prints one JSON object per line.',
  }),
};

type FlagName = keyof typeof serveOptions;
const flagNames = Object.keys(serveOptions) as FlagName[];

/** The name of each flag's value in the help; a flag without one is a switch. */
export const flagValues: Readonly<Partial<Record<FlagName, string>>> = {
  port: 'PORT',
  host: 'ADDRESS',
  esphome: 'COMMAND',
  takeOver: 'DIR',
  lanes: 'NUMBER',
  gitConfig: 'FILE',
  admin: 'PORT',
};

/** `--take-over` for `takeOver`. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** Throws `OPTIONS` for an invalid value, and an error of `parseArgs` for an unknown flag. */
export function readFlags(args: string[]) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: Object.fromEntries(
      flagNames.map((name) => [flagOf(name).slice(2), { type: flagValues[name] ? 'string' : 'boolean' }]),
    ),
  });
  const [directory, ...more] = positionals;
  if (directory === undefined || more.length > 0) {
    const message = `invalid arguments: expected one directory, got ${positionals.length}`;
    throw new ReceiverError('OPTIONS', message);
  }
  const given = flagNames.map((name) => [name, valueOf(name, values[flagOf(name).slice(2)])]);
  const nameFlag = ([name]: readonly PropertyKey[]): string => flagOf(String(name));
  const read = parseOptions(z.strictObject(serveOptions), Object.fromEntries(given), nameFlag);
  return { directory, ...read };
}

/** Anything but digits stays a string, which the check then quotes. */
function valueOf(name: FlagName, value: unknown): unknown {
  const isNumber = factsOf(serveOptions[name]).core instanceof z.ZodNumber;
  return isNumber && typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value;
}

const helpWidth = 80;

export function serveHelp(): string {
  const flags = flagNames.map((name) => [flagOf(name), flagValues[name]].filter(Boolean).join(' '));
  const indent = Math.max(...flags.map((flag) => flag.length)) + 4;
  const lines = flagNames.flatMap((name, index) => {
    const [first = '', ...rest] = wrap(helpText(name), helpWidth - indent);
    const beside = rest.map((line) => ' '.repeat(indent) + line);
    return [`  ${flags[index]}`.padEnd(indent) + first, ...beside];
  });
  return `Usage: koa-esphome-receiver serve DIR [flags]

A build server for other dashboards. DIR keeps its key, its paired dashboards
and its builds, and is created when missing.

${lines.join('\n')}
`;
}

function helpText(name: FlagName): string {
  const facts = factsOf(serveOptions[name]);
  const limits = limitsText(facts, name);
  const value = flagValues[name] === undefined ? undefined : defaultText(facts, name);
  const { summary, details } = facts.info;
  const parts = [summary, details, limits && `Range: ${limits}.`, value && `Default: ${value}.`];
  return parts.filter(Boolean).join(' ').replaceAll('`', '');
}
