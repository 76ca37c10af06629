/**
 * The names of all events that the sources log, with their levels. Operators search for them and write alarms on them, so
 * the list in docs/OPERATING.md must be complete.
 */
import type { Sources } from './sources.js';

/** Level by name. What a template fills in is an ellipsis. */
export type LogEvents = ReadonlyMap<string, string>;

const calls = /\b(?:log\.(debug|info|warn|error)|(warnRefused))\(/g;

export function loggedEvents(sources: Sources): LogEvents {
  const events = new Map<string, string>();
  for (const text of sources.values()) {
    for (const { 0: call, 1: level = 'warn', index } of text.matchAll(calls)) {
      const name = nameOf(lastArgument(text, index + call.length), text);
      if (name !== undefined) events.set(name, level);
    }
  }
  return events;
}

/** The rows of a table whose first column holds names and whose second the level. */
export function documentedEvents(document: string): LogEvents {
  const rows = document.matchAll(/^\| (`[^|]*`) +\| (debug|info|warn|error) +\|/gm);
  return new Map(
    [...rows].flatMap(([, names = '', level = '']) =>
      [...names.matchAll(/`([^`]+)`/g)].map(([, name = '']) => [name, level] as const),
    ),
  );
}

/** A literal, or a constant of the same file; undefined for what another thread has logged. */
function nameOf(argument: string, text: string): string | undefined {
  const literal = /^(['"`])(.*)\1$/s.exec(argument)?.[2];
  if (literal !== undefined) return literal.replaceAll(/\$\{[^}]*\}/g, '…').replaceAll('\\', '');
  return new RegExp(`\\bconst ${argument.replaceAll('.', '\\.')} = '([^']*)'`).exec(text)?.[1];
}

function lastArgument(text: string, start: number): string {
  let depth = 0;
  let from = start;
  let quote = '';
  for (let at = start; at < text.length; at += 1) {
    const sign = text.charAt(at);
    if (quote !== '') {
      if (sign === '\\') at += 1;
      else if (sign === quote) quote = '';
    } else if (`'"\``.includes(sign)) quote = sign;
    else if ('([{'.includes(sign)) depth += 1;
    else if (
      sign === ',' &&
      depth === 0 &&
      text
        .slice(at + 1)
        .trimStart()
        .charAt(0) !== ')'
    )
      from = at + 1;
    else if (')]}'.includes(sign)) {
      if (depth === 0) return text.slice(from, at).trim().replace(/,$/, '');
      depth -= 1;
    }
  }
  return '';
}
