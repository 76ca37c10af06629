/**
 * Names that a stranger gave to itself, made fit to be read by the person who decides about it. A direction mark or
 * an invisible letter can make "intruder" read like the name of one's own dashboard.
 */

const maxCharacters = 128;
/** Control, format and direction characters, surrogates, unassigned ones, line ends, fillers, the blank Braille cell. */
const unfit = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** The text without such characters, white space trimmed and single, at most 128 characters; '' for no string. */
export function cleanLabel(text: unknown): string {
  if (typeof text !== 'string') return '';
  const visible = text.replace(/\s+/g, ' ').replace(unfit, '').trim();
  return visible.length <= maxCharacters
    ? visible
    : Array.from(visible).slice(0, maxCharacters).join('').trimEnd();
}
