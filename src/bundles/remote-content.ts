/**
 * A look at the bytes of a bundle while they are unpacked: does anything in it mention a build path of its own, or
 * parts that are fetched from elsewhere and may be others tomorrow?
 *
 * ESPHome empties whatever directory `build_path` names, so such a bundle is looked at by `esphome config` before
 * it may compile; the others save the 0.2 s. Every member counts, because `!include` reads any file, and in YAML
 * files the ways to write a key without its letters count as well. It errs towards saying yes. Only what holds a
 * zero byte, as fonts and pictures do, is passed over: ESPHome refuses to read it (ESPHome 2026.10).
 */

export interface RemoteContent {
  /** `build_path`, or a YAML key that may hide it behind an escape or a substitution. */
  readonly buildPath: boolean;
  /** An external component, or a package that is fetched. */
  readonly remoteParts: boolean;
  /**
   * A file or library that is fetched by its address or name. It cannot hold a build path, but tomorrow it may be
   * another one under the same name.
   */
  readonly webFiles: boolean;
}

export interface RemoteContentScanner {
  /** The scanner of one member's bytes, given in order. */
  member(path: string): (piece: Buffer) => void;
  remoteContent(): RemoteContent;
}

const buildPathWords = ['build_path'];
const remoteWords = ['external_components', 'github://', 'gitlab://', 'git@', '.git', 'url:', 'type: git'];
/**
 * An address, a font of Google's, a picture of Material Design's (or one that a substitution names), the models of
 * the wake word, libraries by name, a platform's newest state (ESPHome 2026.10). Entities name their icons without
 * `file:`; those are not fetched.
 */
const fetchedParts = [
  /:\/\/|gfonts|micro_wake_word|libraries:|lib_deps/,
  /(?:file|source):[ \t]*["']?(?:mdi|memory|\$)/,
  /version:[ \t]*["']?dev/,
];
/** Any of them in a line that is not a comment. Linear. */
const fetched = new RegExp(
  `^[ \\t]*(?![ \\t#]).*(?:${fetchedParts.map(({ source }) => source).join('|')})`,
  'm',
);
/** C++ is never read as YAML, and full of addresses in its comments. */
const codeName = /\.(?:[ch]|[ch]pp|cc|ino)$/i;
/** Escapes and escaped line breaks in quoted keys; `$name:` and `${ expression }:` as keys. Linear: all bounded. */
const hiddenKey = /\\[xuU\r\n]|\$\w{1,64}["']?\s{0,8}:|\}["']?\s{0,8}:/;
const yamlName = /\.ya?ml$/i;
/** Longer than the longest match above, so that one cut by the end of a piece is found with the next. */
const overlapBytes = 128;

export function createRemoteContentScanner(): RemoteContentScanner {
  let buildPath = false;
  let remoteParts = false;
  let webFiles = false;
  return {
    member(path) {
      const isYaml = yamlName.test(path);
      const isCode = codeName.test(path);
      let isBinary = false;
      let tail: Buffer = Buffer.alloc(0);
      return (piece) => {
        isBinary ||= piece.includes(0);
        if (isBinary || (buildPath && remoteParts && webFiles)) return;
        const bytes = tail.length === 0 ? piece : Buffer.concat([tail, piece]);
        buildPath ||= mentions(bytes, buildPathWords) || (isYaml && hiddenKey.test(bytes.toString('latin1')));
        remoteParts ||= mentions(bytes, remoteWords);
        webFiles ||= !isCode && fetched.test(bytes.toString('latin1'));
        tail = Buffer.from(bytes.subarray(-overlapBytes));
      };
    },
    remoteContent: () => ({ buildPath, remoteParts, webFiles }),
  };
}

function mentions(bytes: Buffer, words: readonly string[]): boolean {
  return words.some((word) => bytes.includes(word, 0, 'latin1'));
}
