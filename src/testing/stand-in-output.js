/**
 * The stand-in's two streams, used like ESPHome 2026.10: its own log lines go to stderr, all else to stdout, each written
 * synchronously, so that both keep their order in one pipe. None of the stand-in's files imports `node:process`: that opens
 * the global's streams, and writing here would then fail on a full pipe.
 */
import * as fs from 'node:fs';

const isDashboard = process.argv.includes('--dashboard');
const isQuiet = process.argv.includes('ERROR');

/** @param {string} text */
export function print(text) {
  fs.writeFileSync(1, `${text}\n`);
  return 0;
}

/** @param {string} text */
export function info(text) {
  if (!isQuiet) log('INFO', 32, text);
}

/** @param {string} text @param {number} code */
export function fail(text, code) {
  log('ERROR', 31, text.replace(/^ERROR /, ''));
  return code;
}

/** @param {string} text */
export function failConfig(text) {
  print(`Failed config\n\n${text}`);
  return 2;
}

/** With `--dashboard` ESPHome writes the escape character as four characters. @param {string} level @param {number} colour @param {string} text */
function log(level, colour, text) {
  const line = `${level} ${text}`;
  fs.writeFileSync(2, isDashboard ? `\\033[${colour}m${line}\\033[0m\n` : `${line}\n`);
}
