/**
 * Describes an option's default, limits and type for the documentation and `serve --help`. Long numbers get a readable
 * unit, because nobody reads 2,592,000,000 as 30 days.
 */
import * as z from 'zod';

import type { OptionFacts } from './schema.js';

/** Undefined if there is no default, or none that text can show. */
export function defaultText(facts: OptionFacts, name: string): string | undefined {
  if (facts.info.defaultText !== undefined) return facts.info.defaultText;
  const value = facts.default;
  if (typeof value === 'number') return amount(value, name, facts);
  return typeof value === 'string' || typeof value === 'boolean' || value === null
    ? `\`${value}\``
    : undefined;
}

/** The limits of a number or a string; undefined if there are none. */
export function limitsText(facts: OptionFacts, name: string): string | undefined {
  const { core, least, most } = facts;
  if (core instanceof z.ZodString) return most === undefined ? undefined : `at most ${most} characters`;
  if (least === undefined) return undefined;
  if (most === undefined) return `at least ${amount(least, name, facts)}`;
  return `${amount(least, name, facts)} to ${amount(most, name, facts)}`;
}

/** The type in a few words, with the unit that the option's name implies. */
export function typeText({ info, core, values, isNullable }: OptionFacts, name: string): string {
  if (info.type !== undefined) return `\`${info.type}\``;
  if (values) return values.map((value) => `\`${value}\``).join(', ');
  if (!(core instanceof z.ZodNumber)) return core.def.type;
  if (info.isPort) return 'port';
  const unit = unitOf(name);
  return ['integer', ...(unit ? [` (${unit})`] : []), ...(isNullable ? [' or `null`'] : [])].join('');
}

function unitOf(name: string): string | undefined {
  if (name.endsWith('Ms')) return 'ms';
  return /bytes/i.test(name) ? 'bytes' : undefined;
}

const times: readonly Unit[] = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1_000],
];

const sizes: readonly Unit[] = [
  ['PiB', 2 ** 50],
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
  ['GB', 1e9],
  ['MB', 1e6],
];

type Unit = readonly [name: string, size: number];

/** `600,000 (10 minutes)`. */
function amount(value: number, name: string, { info }: OptionFacts): string {
  if (info.isPort) return String(value);
  const digits = value.toLocaleString('en-US');
  const kind = unitOf(name);
  const units = kind === 'ms' ? times : kind === 'bytes' ? sizes : [];
  const unit = units.find(([, size]) => value >= size && value % size === 0);
  if (unit === undefined) return digits;
  const count = value / unit[1];
  return `${digits} (${count} ${unit[0]}${kind === 'ms' && count !== 1 ? 's' : ''})`;
}

/** Wraps text at `width`. A longer word gets its own line, and `(30 days)` stays together. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/ (?![a-z]+\))/i)) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= width) lines.push(`${lines.pop()} ${word}`);
    else lines.push(word);
  }
  return lines;
}
