/**
 * Scans a bundle's bytes during unpacking for a build path of its own, and for remote parts that can change.
 *
 * ESPHome empties whatever directory `build_path` names, so `esphome config` checks such a bundle before it compiles;
 * the others save the 0.2 s. The scan covers every member, because `!include` reads any file, and in YAML also the ways
 * to write a key without its letters. It prefers false positives. It skips only members with a zero byte, such as fonts
 * and pictures: ESPHome refuses to include them (ESPHome 2026.10).
 */

export interface RemoteContent {
  /** `build_path`, or a YAML key that can hide it behind an escape or a substitution. */
  readonly buildPath: boolean;
  /** An external component or a remote package. */
  readonly remoteParts: boolean;
  /** A file or library fetched by address or name. It cannot set a build path, but its content can change. */
  readonly webFiles: boolean;
}

const buildPathWords = ['build_path'];
const remoteWords = ['external_components', 'github://', 'gitlab://', 'git@', '.git', 'url:', 'type: git'];
/**
 * A URL, a Google font, a Material Design picture (or one that a substitution names), wake word models, libraries by
 * name, a platform's development version (ESPHome 2026.10). Entity icons have no `file:` and are not fetched.
 */
const fetchedParts = [
  /:\/\/|gfonts|micro_wake_word|libraries:|lib_deps/,
  /(?:file|source):[ \t]*["']?(?:mdi|memory|\$)/,
  /version:[ \t]*["']?dev/,
];
/** Any of them in a line other than a comment. Linear. */
const fetched = new RegExp(
  `^[ \\t]*(?![ \\t#]).*(?:${fetchedParts.map(({ source }) => source).join('|')})`,
  'm',
);
/** C++ is never read as YAML, and its comments are full of URLs. */
const codeName = /\.(?:[ch]|[ch]pp|cc|ino)$/i;
/** Escapes and escaped line breaks in quoted keys; `$name:` and `${ expression }:` as keys. Linear: all bounded. */
const hiddenKey = /\\[xuU\r\n]|\$\w{1,64}["']?\s{0,8}:|\}["']?\s{0,8}:/;
const yamlName = /\.ya?ml$/i;
/** Longer than the longest match above, to find one that is split between two pieces. */
const overlapBytes = 128;

export function createRemoteContentScanner() {
  let buildPath = false;
  let remoteParts = false;
  let webFiles = false;
  return {
    /** Returns the scanner for one member; pass it the bytes in order. */
    member(path: string) {
      const isYaml = yamlName.test(path);
      const isCode = codeName.test(path);
      let isBinary = false;
      let tail: Buffer = Buffer.alloc(0);
      return (piece: Buffer): void => {
        isBinary ||= piece.includes(0);
        if (isBinary || (buildPath && remoteParts && webFiles)) return;
        const bytes = tail.length === 0 ? piece : Buffer.concat([tail, piece]);
        buildPath ||= mentions(bytes, buildPathWords) || (isYaml && hiddenKey.test(bytes.toString('latin1')));
        remoteParts ||= mentions(bytes, remoteWords);
        webFiles ||= !isCode && fetched.test(bytes.toString('latin1'));
        tail = Buffer.from(bytes.subarray(-overlapBytes));
      };
    },
    remoteContent: (): RemoteContent => ({ buildPath, remoteParts, webFiles }),
  };
}

function mentions(bytes: Buffer, words: readonly string[]): boolean {
  return words.some((word) => bytes.includes(word, 0, 'latin1'));
}
