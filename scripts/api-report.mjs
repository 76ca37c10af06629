/**
 * Writes the public API to api/, one report for each subpath of package.json, made from the built declarations: a
 * breaking change then shows in a diff. `npm run api` writes the reports, `npm run api -- --check` fails when one differs.
 * API Extractor brings a TypeScript of its own, because the native compiler has no programming interface for it.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Extractor, ExtractorConfig, ExtractorLogLevel } from '@microsoft/api-extractor';

const root = fileURLToPath(new URL('..', import.meta.url));
const directory = join(root, 'api');
const { check } = parseArgs({ options: { check: { type: 'boolean' } } }).values;

execFileSync(process.execPath, ['scripts/build.mjs'], { cwd: root, stdio: 'inherit' });

const reports = new Map(entryPoints().map(({ name, types }) => [`${name}.api.md`, reportOf(name, types)]));
const present = existsSync(directory) ? readdirSync(directory) : [];
const stray = present.filter((file) => !reports.has(file));
const changed = [...reports].filter(
  ([file, text]) => !present.includes(file) || readFileSync(join(directory, file), 'utf8') !== text,
);
if (check) {
  for (const [file, text] of changed) console.error(differenceOf(file, text));
  const wrong = [...changed.map(([file]) => file), ...stray];
  if (wrong.length > 0) {
    console.error(
      `The public API differs from api/: ${wrong.join(', ')}. Run \`npm run api\` and review the diff.`,
    );
    process.exitCode = 1;
  } else {
    console.log(`The public API is as in api/: ${[...reports.keys()].join(', ')}.`);
  }
} else {
  mkdirSync(directory, { recursive: true });
  for (const file of stray) rmSync(join(directory, file));
  for (const [file, text] of changed) writeFileSync(join(directory, file), text);
  console.log(`Changed in api/: ${[...changed.map(([file]) => file), ...stray].join(', ') || 'nothing'}.`);
}

/** Each subpath that has types. @returns {{ name: string, types: string }[]} */
function entryPoints() {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return Object.entries(manifest.exports)
    .filter(([, target]) => target.types !== undefined)
    .map(([subpath, target]) => ({
      name: subpath === '.' ? 'index' : subpath.slice('./'.length),
      types: join(root, target.types),
    }));
}

/** @param {string} name @param {string} types */
function reportOf(name, types) {
  const scratch = mkdtempSync(join(tmpdir(), 'api-report-'));
  try {
    const config = ExtractorConfig.prepare({
      packageJsonFullPath: join(root, 'package.json'),
      configObjectFullPath: undefined,
      configObject: {
        projectFolder: root,
        mainEntryPointFilePath: types,
        newlineKind: 'lf',
        compiler: {
          overrideTsconfig: { extends: join(root, 'tsconfig.json'), files: [types], include: [] },
        },
        apiReport: {
          enabled: true,
          // A type that a signature names is part of the API, even if no user can import it.
          includeForgottenExports: true,
          reportFileName: name,
          reportFolder: scratch,
          reportTempFolder: join(scratch, 'temp'),
        },
        docModel: { enabled: false },
        dtsRollup: { enabled: false },
        tsdocMetadata: { enabled: false },
        messages: {
          compilerMessageReporting: { default: { logLevel: ExtractorLogLevel.Error } },
          extractorMessageReporting: { default: { logLevel: ExtractorLogLevel.None } },
          tsdocMessageReporting: { default: { logLevel: ExtractorLogLevel.None } },
        },
      },
    });
    const { succeeded } = Extractor.invoke(config, {
      localBuild: true,
      messageCallback: (message) => {
        message.handled = message.logLevel !== ExtractorLogLevel.Error;
      },
    });
    if (!succeeded) throw new Error(`no report could be made of ${types}`);
    return tidy(readFileSync(join(scratch, `${name}.api.md`), 'utf8'));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Without the marks for release stages and missing comments, which this project does not use. @param {string} text */
function tidy(text) {
  return text.replaceAll(/^ *\/\/ (?:@public.*|\(undocumented\))\n/gm, '').trimEnd() + '\n';
}

/** What `diff` says of a report, for a reader of the CI's log. @param {string} file @param {string} text */
function differenceOf(file, text) {
  const path = join('api', file);
  if (!existsSync(join(root, path))) return `${path} is missing`;
  const { stdout } = spawnSync('diff', ['-u', '--label', path, '--label', 'built', path, '-'], {
    cwd: root,
    input: text,
    encoding: 'utf8',
  });
  return stdout;
}
