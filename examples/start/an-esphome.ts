/** Finds the ESPHome of this machine, or installs one into the user's cache, where every clone finds it. */
import { quote, ReceiverError } from '../../src/errors.js';
import { findEsphome, type EsphomeCommand } from '../../src/esphome/command.js';
import { provisionEsphome } from '../../src/provision/releases.js';
import { probeVersion } from '../../src/esphome/version.js';

const version = '2026.10.0';
const shownLines = 20;
/** Older releases need a registry to compile a `host:` configuration. */
const env = { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '' };

/** The option, `ESPHOME_COMMAND`, `esphome` on the PATH, or an installed one. Throws `PROVISION`. */
export async function anEsphome(option: string | undefined): Promise<EsphomeCommand> {
  const found = await findEsphome({ esphome: option, environment: process.env });
  if (found !== null) {
    console.log(`   ${found.join(' ')} (${await probeVersion(found, { env })})`);
    return found;
  }
  const wish = option ?? process.env['ESPHOME_COMMAND'];
  if (wish) throw new ReceiverError('PROVISION', `${quote(wish)} is not a program`);
  const command = await install();
  console.log(`   ${command.join(' ')} (${version})`);
  return command;
}

/** From the cache, or from PyPI. What pip prints is shown only when it fails. */
async function install(): Promise<EsphomeCommand> {
  const lines: string[] = [];
  try {
    return await provisionEsphome({
      version,
      onInstall: () => console.log(`   none found; installing ESPHome ${version} from PyPI (1 to 2 minutes)`),
      onLine: (line) => void lines.push(line),
    });
  } catch (error) {
    console.error(lines.slice(-shownLines).join(''));
    throw error;
  }
}
