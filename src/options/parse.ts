/**
 * Checks options against a schema. An error names the option, what was expected and what was given, and suggests the
 * nearest name for an unknown option.
 */
import * as z from 'zod';

import { ReceiverError, quote } from '../errors.js';
import { factsOf, type OptionFacts } from './schema.js';

type Issue = z.core.$ZodIssue;

/** Formats the name of an option as its user knows it. */
export type NameOption = (path: readonly PropertyKey[]) => string;

/** Returns the checked options with their defaults. Throws `OPTIONS`, listing every fault. */
export function parseOptions<S extends z.ZodType>(
  schema: S,
  options: unknown,
  nameOption: NameOption = dotted,
): z.output<S> {
  const result = schema.safeParse(options, { reportInput: true });
  if (result.success) return result.data;
  const faults = result.error.issues.flatMap((issue) => faultsOf(issue, issue.path, schema, nameOption));
  throw new ReceiverError('OPTIONS', faults.join('; '));
}

function faultsOf(
  issue: Issue,
  path: readonly PropertyKey[],
  root: z.ZodType,
  nameOption: NameOption,
): string[] {
  if (issue.code === 'invalid_union') {
    // For a union, report the faults inside the member that the value resembles.
    const inside = issue.errors.find((issues) => issues.some(isInside));
    if (inside) return inside.flatMap((each) => faultsOf(each, [...path, ...each.path], root, nameOption));
  }
  const { schema, isSecret } = schemaAt(root, path);
  if (issue.code === 'unrecognized_keys') {
    const known = namesIn(schema);
    return issue.keys.map((key) => unknownOption(key, known, path, nameOption));
  }
  const given = isSecret ? `a value of type ${typeof issue.input}` : show(issue.input);
  const name = path.length === 0 ? 'options' : nameOption(path);
  return [`invalid ${name}: expected ${expectedOf(factsOf(schema))}, got ${given}`];
}

function isInside(issue: Issue): boolean {
  return issue.path.length > 0 || issue.code === 'unrecognized_keys';
}

function dotted(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) =>
      typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`,
    )
    .join('');
}

function schemaAt(root: z.ZodType, path: readonly PropertyKey[]) {
  let schema = root;
  let isSecret = false;
  for (const part of path) {
    const next = memberOf(objectIn(factsOf(schema).core), part);
    if (next === undefined) break;
    schema = next;
    isSecret ||= factsOf(schema).info.isSecret === true;
  }
  return { schema, isSecret };
}

/** The object of a union or of a transformed schema, else the schema itself. */
function objectIn(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodPipe) return objectIn(schema.in as z.ZodType);
  if (!(schema instanceof z.ZodUnion)) return schema;
  const members = schema.options as readonly z.ZodType[];
  return members.map((each) => factsOf(each).core).find((each) => each instanceof z.ZodObject) ?? schema;
}

function memberOf(schema: z.ZodType, part: PropertyKey): z.ZodType | undefined {
  if (schema instanceof z.ZodObject) return (schema.shape as Record<PropertyKey, z.ZodType>)[part];
  if (schema instanceof z.ZodArray) return schema.element as z.ZodType;
  if (schema instanceof z.ZodRecord) return schema.valueType as z.ZodType;
  return undefined;
}

function namesIn(schema: z.ZodType): readonly string[] {
  const object = objectIn(factsOf(schema).core);
  return object instanceof z.ZodObject ? Object.keys(object.shape) : [];
}

/** Describes a valid value. */
function expectedOf({ info, core, isNullable, values, least, most }: OptionFacts): string {
  if (info.expected !== undefined) return info.expected;
  const orNull = isNullable ? ' or null' : '';
  if (core instanceof z.ZodNumber) {
    const range = most === undefined ? `of at least ${least}` : `from ${least} to ${most}`;
    return `an integer ${range}${orNull}`;
  }
  if (values)
    return values
      .map((value) => `"${value}"`)
      .join(', ')
      .replace(/, (?=[^,]*$)/, ' or ');
  if (core instanceof z.ZodBoolean) return 'true or false';
  if (core instanceof z.ZodString) {
    return most === undefined ? 'a string' : `a string of at most ${most} characters`;
  }
  return 'an object';
}

/** Shows any value in one line, but never the content of an object, which can be large or secret. */
function show(value: unknown): string {
  if (typeof value === 'string') return quote(value);
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object' && value !== null) return 'an object';
  return typeof value === 'function' ? 'a function' : String(value);
}

function unknownOption(
  key: string,
  known: readonly string[],
  path: readonly PropertyKey[],
  nameOption: NameOption,
): string {
  const nearest = nearestTo(key, known);
  const hint = nearest === undefined ? `allowed: ${known.join(', ')}` : `did you mean "${nearest}"?`;
  return `unknown option ${quote(nameOption([...path, key]))} (${hint})`;
}

/** The known name that differs in only a few letters, or else contains the given one. */
function nearestTo(given: string, known: readonly string[]): string | undefined {
  const key = given.toLowerCase();
  const reach = key.length < 4 ? 1 : Math.max(2, Math.floor(key.length / 3));
  const [nearest] = known
    .map((name) => ({ name, distance: distance(key, name.toLowerCase()) }))
    .filter((each) => each.distance <= reach)
    .toSorted((a, b) => a.distance - b.distance);
  const isPart = (name: string): boolean => key.length > 2 && name.toLowerCase().includes(key);
  return nearest?.name ?? known.find(isPart);
}

/** The Levenshtein distance, of the first 64 letters, so that a hostile name costs little. */
function distance(given: string, known: string): number {
  const text = given.slice(0, 64);
  let row = Array.from({ length: known.length + 1 }, (_, index) => index);
  for (let index = 0; index < text.length; index += 1) {
    const next = [index + 1];
    for (let column = 1; column <= known.length; column += 1) {
      const [left = 0, above = 0, diagonal = 0] = [next[column - 1], row[column], row[column - 1]];
      next.push(Math.min(left + 1, above + 1, diagonal + (known[column - 1] === text[index] ? 0 : 1)));
    }
    row = next;
  }
  return row[known.length] ?? 0;
}
