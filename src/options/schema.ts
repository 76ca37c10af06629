/**
 * Declares an option as a zod schema for its values and a description for people.
 *
 * The option's type, its doc comment, docs/OPTIONS.md, `serve --help` and the messages for invalid values are derived
 * from these two. What the schema knows (type, default, limits) is never repeated as text.
 */
import * as z from 'zod';

export interface OptionInfo {
  /** One sentence: what the option sets. Backticks mark code. */
  readonly summary: string;
  readonly details?: string;
  /** The default in words, if it is computed or there is none. */
  readonly defaultText?: string;
  /** The TypeScript type, if it cannot be derived from the schema. */
  readonly type?: string;
  /** A valid value in words for error messages, if it cannot be derived from the schema. */
  readonly expected?: string;
  /** The number is a port, written without separators. */
  readonly isPort?: boolean;
  /** The value can contain secrets, so an error message shows only its type. */
  readonly isSecret?: boolean;
}

const infos = z.registry<OptionInfo>();

/** Declares an option. Call it last: zod methods return a new schema, which would lose the description. */
export function option<S extends z.ZodType>(schema: S, info: OptionInfo): S {
  infos.add(schema, info);
  return schema;
}

/** An option's description and the facts that its schema contains. */
export interface OptionFacts {
  readonly info: OptionInfo;
  /** The schema without its default, `optional`, `nullable` and `readonly`. */
  readonly core: z.ZodType;
  readonly isRequired: boolean;
  readonly isNullable: boolean;
  /** Undefined if there is none, or if it is computed. */
  readonly default: unknown;
  readonly least: number | undefined;
  readonly most: number | undefined;
  /** The values of an enum. */
  readonly values: readonly string[] | undefined;
}

const wrappers = new Set(['default', 'prefault', 'optional', 'nullable', 'readonly']);

interface Wrapper {
  readonly type: string;
  readonly innerType: z.ZodType;
  readonly defaultValue?: unknown;
}

export function factsOf(schema: z.ZodType): OptionFacts {
  const info = infos.get(schema) ?? { summary: '' };
  let core = schema;
  let isNullable = false;
  let value: unknown;
  while (wrappers.has(core.def.type)) {
    const wrapper = core.def as unknown as Wrapper;
    isNullable ||= wrapper.type === 'nullable';
    if (info.defaultText === undefined && value === undefined) value = wrapper.defaultValue;
    core = wrapper.innerType;
  }
  return {
    ...{ info, core, isNullable },
    isRequired: schema === core,
    default: value,
    ...boundsOf(core),
    values: core instanceof z.ZodEnum ? core.options.map(String) : undefined,
  };
}

function boundsOf(core: z.ZodType): Pick<OptionFacts, 'least' | 'most'> {
  if (core instanceof z.ZodString) return { least: undefined, most: core.maxLength ?? undefined };
  if (!(core instanceof z.ZodNumber)) return { least: undefined, most: undefined };
  const bound = (value: number | null): number | undefined =>
    value === null || Math.abs(value) >= Number.MAX_SAFE_INTEGER ? undefined : value;
  return { least: bound(core.minValue), most: bound(core.maxValue) };
}
