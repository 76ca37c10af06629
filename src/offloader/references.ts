/**
 * What a YAML file of ESPHome's refers to, found by looking at its text. It is a guess and no parser: a name that
 * is no file does no harm, since only files that exist are taken, and what is missed is reported by the compiler.
 */

export interface References {
  /** Words that may name a file: the target of an `!include`, a font, an image, a header. */
  readonly files: readonly string[];
  /** Words that may name a directory that is needed as a whole. */
  readonly directories: readonly string[];
  /** Keys of `secrets.yaml`. */
  readonly secrets: readonly string[];
}

/** A quoted or a bare scalar; of a bare one the separators of flow collections are no part. */
const scalar = String.raw`(?:"([^"\n]{1,500})"|'([^'\n]{1,500})'|([^\s"'{}[\],]{1,500}))`;
const anyScalar = new RegExp(scalar, 'g');
const directory = new RegExp(String.raw`(?:!include_dir_\w+|(?:source|path):)\s+${scalar}`, 'g');
const secret = new RegExp(String.raw`!secret\s+${scalar}`, 'g');
const comment = /(?:^|\s)#.*$/gm;

export function referencesOf(yaml: string): References {
  const text = yaml.replace(comment, '');
  return {
    files: scalarsOf(text, anyScalar).filter((word) => /[./]/.test(word)),
    directories: scalarsOf(text, directory),
    secrets: scalarsOf(text, secret),
  };
}

/** The lines of a `secrets.yaml` that define these keys, and the keys that it does not define. */
export function reduceSecrets(
  yaml: string,
  wanted: readonly string[],
): { readonly text: string; readonly missing: readonly string[] } {
  const found = new Set<string>();
  let isKept = false;
  const kept = yaml.split(/(?<=\n)/).filter((line) => {
    const key = /^["']?([^\s"'#:][^"'#:]*)["']?\s*:(?:\s|$)/.exec(line)?.[1]?.trim();
    if (key !== undefined) {
      isKept = wanted.includes(key);
      if (isKept) found.add(key);
    } else if (/^\S/.test(line)) {
      isKept = false;
    }
    return isKept;
  });
  return { text: kept.join(''), missing: wanted.filter((key) => !found.has(key)) };
}

/** What the pattern's scalar was, each once. */
function scalarsOf(text: string, pattern: RegExp): string[] {
  const words = [...text.matchAll(pattern)].map(([, double, single, bare]) => double ?? single ?? bare ?? '');
  return [...new Set(words)];
}
