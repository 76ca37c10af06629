/** Installs the real programs before the real tests, in the open: what they cost is theirs and no test's. */
import { isReceiverError, messageOf } from '../../src/errors.js';
import {
  olderEsphome,
  olderVersion,
  otherDeviceBuilder,
  otherDeviceBuilders,
  realDeviceBuilder,
  realEsphome,
} from './support.js';
import type { PlaceOptions } from '../../src/provision/venv.js';

const onLine = (line: string): void => void process.stdout.write(`  ${line}`);

const programs = {
  ESPHome: realEsphome,
  [`ESPHome ${olderVersion}`]: olderEsphome,
  'Device Builder': realDeviceBuilder,
  ...Object.fromEntries(
    otherDeviceBuilders.map((version) => [
      `Device Builder ${version}`,
      (options: PlaceOptions) => otherDeviceBuilder(version, options),
    ]),
  ),
};
for (const [name, install] of Object.entries(programs)) {
  const start = performance.now();
  try {
    const program = await install({ onLine });
    console.log(`${name}: ${program.join(' ')} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  } catch (error) {
    console.error(
      `${name} is not to be had. ${messageOf(error)}`,
      isReceiverError(error) ? error.facts : error,
    );
    process.exit(1);
  }
}
