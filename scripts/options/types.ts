/** Writes an interface with its doc comments from the declarations of a group of options. */
import * as z from 'zod';

import { factsOf, type OptionFacts } from '../../src/options/schema.js';
import { defaultText, limitsText, wrap } from '../../src/options/text.js';

/** The columns that a comment has beside its indent and its star. */
const commentWidth = 110 - 5;

export type Options = Readonly<Record<string, z.ZodType>>;

interface InterfaceKind {
  /** The comment on the interface. */
  readonly about: string;
  /** The interface that it extends. */
  readonly parent?: string;
  /** Every member is there; a host writes a `Partial` of it. */
  readonly isResolved?: boolean;
}

export function interfaceText(name: string, options: Options, kind: InterfaceKind): string {
  const members = Object.entries(options).map(([key, schema]) => {
    const facts = factsOf(schema);
    const mark = facts.isRequired || kind.isResolved ? ':' : '?:';
    const orUndefined = mark === '?:' ? ' | undefined' : '';
    return `${comment(facts, key)}\n  readonly ${key}${mark} ${typeOf(facts, key)}${orUndefined};\n`;
  });
  const parent = kind.parent === undefined ? '' : ` extends ${kind.parent}`;
  return `/** ${kind.about} */\nexport interface ${name}${parent} {\n${members.join('')}}\n`;
}

function comment(facts: OptionFacts, name: string): string {
  const { summary, details } = facts.info;
  const limits = limitsText(facts, name);
  const value = facts.isRequired ? 'Required' : defaultText(facts, name);
  const isNamed = value === 'Required' || value === undefined;
  const parts = [
    ...[summary, details, limits && `${sentence(limits)}.`],
    isNamed ? value && `${value}.` : `Default: ${value}.`,
  ];
  const text = parts.filter(Boolean).join(' ');
  if (text.length <= commentWidth - 2) return `  /** ${text} */`;
  return ['  /**', ...wrap(text, commentWidth).map((line) => `   * ${line}`), '   */'].join('\n');
}

function sentence(limits: string): string {
  return /^\d/.test(limits) ? `From ${limits}` : limits.charAt(0).toUpperCase() + limits.slice(1);
}

function typeOf({ info, core, values, isNullable }: OptionFacts, name: string): string {
  const orNull = isNullable ? ' | null' : '';
  if (info.type !== undefined) return info.type + orNull;
  if (values) return values.map((value) => `'${value}'`).join(' | ') + orNull;
  if (core instanceof z.ZodNumber) return `number${orNull}`;
  if (core instanceof z.ZodString) return `string${orNull}`;
  if (core instanceof z.ZodBoolean) return `boolean${orNull}`;
  throw new Error(`the option ${name} needs a \`type\`: it cannot be derived from its schema`);
}
