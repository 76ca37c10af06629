/**
 * A look at the bytes of a bundle while they are unpacked: does anything in it mention a build path of its own, or
 * parts that are fetched from elsewhere?
 *
 * ESPHome empties whatever directory `build_path` names, so such a bundle is looked at by `esphome config` before
 * it may compile; the others save the 0.2 s. Every member counts, because `!include` reads any file, and in YAML
 * files the ways to write a key without its letters count as well. It errs towards saying yes.
 */

export interface Hints {
  /** `build_path`, or a YAML key that may hide it behind an escape or a substitution. */
  readonly buildPath: boolean;
  /** An external component, or a package that is fetched. */
  readonly remoteParts: boolean;
}

export interface HintScanner {
  /** The scanner of one member's bytes, given in order. */
  member(path: string): (piece: Buffer) => void;
  hints(): Hints;
}

const buildPathWords = ['build_path'];
const remoteWords = ['external_components', 'github://', 'gitlab://', 'git@', '.git', 'url:', 'type: git'];
/** Escapes and escaped line breaks in quoted keys; `$name:` and `${ expression }:` as keys. Linear: all bounded. */
const hiddenKey = /\\[xuU\r\n]|\$\w{1,64}["']?\s{0,8}:|\}["']?\s{0,8}:/;
const yamlName = /\.ya?ml$/i;
/** Longer than the longest match above, so that one cut by the end of a piece is found with the next. */
const overlapBytes = 128;

export function createHintScanner(): HintScanner {
  let buildPath = false;
  let remoteParts = false;
  return {
    member(path) {
      const isYaml = yamlName.test(path);
      let tail: Buffer = Buffer.alloc(0);
      return (piece) => {
        if (buildPath && remoteParts) return;
        const bytes = tail.length === 0 ? piece : Buffer.concat([tail, piece]);
        buildPath ||= mentions(bytes, buildPathWords) || (isYaml && hiddenKey.test(bytes.toString('latin1')));
        remoteParts ||= mentions(bytes, remoteWords);
        tail = Buffer.from(bytes.subarray(-overlapBytes));
      };
    },
    hints: () => ({ buildPath, remoteParts }),
  };
}

function mentions(bytes: Buffer, words: readonly string[]): boolean {
  return words.some((word) => bytes.includes(word, 0, 'latin1'));
}
