/** Finds the ESPHome of this machine, or installs one into the user's cache, where every clone finds it. */
import { quote, ReceiverError } from '../../src/errors.js';
import { findEsphome, type EsphomeCommand } from '../../src/esphome/command.js';
import { provisionEsphome } from '../../src/provision/releases.js';
import { probeVersion } from '../../src/esphome/version.js';

const version = '2026.10.0';
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
  console.log(
    `   none found; using ESPHome ${version} from the cache, or installing it from PyPI (1 to 2 minutes)`,
  );
  const command = await provisionEsphome({
    version,
    onLine: (line) => void process.stdout.write(`   ${line}`),
  });
  console.log(`   ${command.join(' ')}`);
  return command;
}
