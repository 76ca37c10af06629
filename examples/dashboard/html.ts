/**
 * An HTML template that escapes its values. Peers choose their labels and file names, and could otherwise write into
 * the operator's page.
 */

/** Text that is HTML already. Only {@link html} makes it. */
export interface Html {
  readonly html: string;
}

/** Puts values into HTML: text is escaped, HTML made here is not, lists are joined. */
export function html(
  pieces: TemplateStringsArray,
  ...values: readonly (string | Html | readonly Html[])[]
): Html {
  const shown = values.map((value) => {
    if (typeof value === 'string') return escape(value);
    return [value]
      .flat()
      .map((part) => part.html)
      .join('');
  });
  return { html: String.raw({ raw: pieces }, ...shown) };
}

const entities = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'],
  ['"', '&quot;'],
  ["'", '&#39;'],
]);

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => entities.get(sign) ?? sign);
}
