/** Strings of attackers, for the property tests of everything that reads a name or a path. */
import fc from 'fast-check';

export const exampleId = 'k3Jx0Qm7vXb2Zr8TtLw5Yc1NsEaUdPfG';

/** Fragments of traversals. */
const fragments = [
  ...[
    '.',
    '..',
    '...',
    '/',
    '//',
    '\\',
    '%2e%2e',
    '%2f',
    '%5c',
    '%00',
    '%252e',
    '..;',
    '~',
    '~root',
    ':',
    'C:',
    'c:\\',
  ],
  ...[
    '\0',
    '\n',
    '\r',
    '\t',
    '\x7f',
    '\u0085',
    '\u2028',
    '\u2029',
    '\u200b',
    '\u200d',
    '\u202e',
    '\u2066',
    '\ufeff',
  ],
  ...[
    '\uff0e',
    '\uff0e\uff0e',
    '\u2024',
    '\u2025',
    '\u2026',
    '\uff0f',
    '\uff3c',
    '\u2044',
    '\u2215',
    '\u29f8',
  ],
  ...['\ud800', '\udfff', '\u0338', '\u034f', '\ufe0f', '\u115f', '\u3164', '\u2100', '\u2105', '\uff1a'],
  ...[
    'con',
    'NUL',
    'aux.txt',
    'com1',
    'lpt\u00b9',
    'CONIN$',
    'file://',
    'http://x/',
    '\\\\?\\',
    '\\\\.\\',
    '//server/share',
  ],
  ...[
    '.esphome',
    '.remote_builds',
    '.receiver',
    '.ESPHOME',
    'config',
    'storage',
    'secrets.yaml',
    '.yaml',
    'kitchen.yaml',
  ],
  ...[
    'kitchen.yaml::$DATA',
    'kitchen.yaml.',
    'kitchen.yaml ',
    ' ',
    '-',
    '--config',
    '$(id)',
    '`id`',
    '|',
    ';',
    '*',
    '?',
    '"',
  ],
  ...[
    'K\u00fcche',
    'Ku\u0308che',
    '\u212b',
    '\ufb01',
    '\u0130',
    '\u0131',
    'stra\u00dfe',
    '\u1e9e',
    '\u{1f600}',
    exampleId,
  ],
];

/** A valid configuration, local or remote. */
export const goodConfiguration = fc.oneof(
  fc.constantFrom('kitchen.yaml', 'rooms/kitchen.yaml', 'K\u00fcche 1.yaml'),
  fc
    .tuple(fc.stringMatching(/^[A-Za-z0-9_-]{8,40}$/), fc.stringMatching(/^[a-z0-9][a-z0-9_-]{0,20}$/))
    .map(([id, name]) => `.esphome/.remote_builds/${id}/${name}/config/${name}.yaml`),
);

/** A valid string with fragments inserted, replaced or cut at random positions. */
export const mutatedConfiguration = fc
  .tuple(
    goodConfiguration,
    fc.array(fc.tuple(fc.nat(), fc.constantFrom(...fragments), fc.constantFrom(0, 0, 1, 5)), {
      minLength: 1,
      maxLength: 4,
    }),
  )
  .map(([good, edits]) =>
    edits.reduce((text, [at, fragment, cut]) => {
      const place = at % (text.length + 1);
      return text.slice(0, place) + fragment + text.slice(place + cut);
    }, good),
  );

/** Anything: mutations, sequences of random fragments, and arbitrary text with unpaired surrogates. */
export const hostileText = fc.oneof(
  { weight: 3, arbitrary: mutatedConfiguration },
  {
    weight: 2,
    arbitrary: fc.array(fc.constantFrom(...fragments), { maxLength: 12 }).map((parts) => parts.join('')),
  },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 60 }) },
  {
    weight: 1,
    arbitrary: fc.array(fc.nat(0xffff), { maxLength: 20 }).map((units) => String.fromCharCode(...units)),
  },
);

/** Names that often pass the file-name rule, in many scripts and forms, to reveal collisions. */
export const nearlyGoodName = fc
  .tuple(
    fc.array(
      fc.oneof(
        fc.constantFrom(
          'k',
          'K',
          '\u212a',
          '\u00fc',
          'u\u0308',
          '\u00dc',
          '\ufb01',
          'fi',
          '\u00df',
          'ss',
          'i',
          '\u0130',
          '\u0131',
        ),
        fc.constantFrom(
          'a',
          'A',
          '\u00e5',
          '\u212b',
          'A\u030a',
          '\uac00',
          '\u1100\u1161',
          '\u0661',
          '1',
          '_',
          '-',
          '.',
          ' ',
        ),
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
      ),
      { minLength: 1, maxLength: 6 },
    ),
    fc.constantFrom('.yaml', '.yml', '.YAML', '.Yml'),
  )
  .map(([parts, ending]) => parts.join('') + ending);
