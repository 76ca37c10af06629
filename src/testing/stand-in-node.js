/**
 * What the stand-in for `esphome` understands of a configuration: the node's name, its platform, and the comment
 * lines that tell it to misbehave. It is not a YAML parser, and enough for tests.
 */
import * as fs from 'node:fs';

import { platforms } from './stand-in-tree.js';

/** @typedef {Exclude<ReturnType<typeof readNode>, string>} Node */

/** @param {string} yaml @returns the few keys that matter, or a sentence saying what is wrong */
export function readNode(yaml) {
  let text;
  try {
    text = fs.readFileSync(yaml, 'utf8');
  } catch {
    return `Error reading file ${yaml}: [Errno 2] No such file or directory: '${yaml}'`;
  }
  const knobs = new Map(
    [...text.matchAll(/^\s*# stand-in: (.*)$/gm)]
      .flatMap(([, line = '']) => line.trim().split(/\s+/))
      .map(
        (knob) => /** @type {[string, string]} */ ([knob.split('=')[0], knob.split('=').slice(1).join('=')]),
      ),
  );
  const plain = text.replace(/^\s*#.*$\n?/gm, '');
  const keys = [...plain.matchAll(/^([a-z0-9_]+):/gm)].map(([, key = '']) => key);
  const section = /^esphome:(.*(?:\n[ \t]+.*)*)/m.exec(plain)?.[1] ?? '';
  const name = valueOf(section, 'name');
  const platform = knobs.get('platform') ?? keys.find((key) => platforms.has(key)) ?? '';
  const target = platforms.get(platform);
  if (name === undefined || !/^[a-z0-9_-]+$/.test(name))
    return "'esphome.name' is missing or has invalid characters";
  if (target === undefined) return 'Platform missing. You must include one of the available platform keys';
  const hasNetwork = keys.includes('wifi');
  return {
    ...{ yaml, knobs, name, target, hasNetwork },
    friendlyName: valueOf(section, 'friendly_name') ?? null,
    buildPath: valueOf(section, 'build_path') ?? `build/${name}`,
    integrations: [...keys, ...(hasNetwork ? ['mdns', 'network'] : [])].filter(
      (key) => key !== 'substitutions',
    ),
    hash: fnv1a(plain),
  };
}

/** @param {string} section @param {string} key */
function valueOf(section, key) {
  return new RegExp(`(?:^|[\\s{,])${key}: *["']?([^"',}\\n]+)`).exec(section)?.[1]?.trim();
}

/** The hash that ESPHome uses. @param {string} text */
function fnv1a(text) {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** ESPHome's spellings of a boolean; any other text is true. @param {string | undefined} value */
export function isTrue(value) {
  return value !== undefined && !/^(?:|0|false|no|off|disable)$/i.test(value);
}
