/**
 * One build of every platform, as ESPHome 2026.10 leaves it. The real ESPHome prepares them, so that sidecars and
 * project files are its own; what only a cross compiler can make are stand-ins under the names that it would use.
 */
interface Leavings {
  /** Below the build path. */
  readonly firmware: string;
  /** What the compiler leaves, from the firmware's directory on. */
  readonly outputs: readonly string[];
  /** The output that must arrive as the firmware, for a compiler that makes none of that name. */
  readonly image?: string;
  /** What the idedata name as the program. Default: `firmware.elf`. */
  readonly program?: string;
  /** The ending of the idedata's name; without one there are none. */
  readonly idedata?: '.json' | '.arduino.json';
  /** Of ESPHome's components the one that lists downloads. */
  readonly component: string | null;
  /** What the client's dashboard must have to offer, from the firmware's directory on. */
  readonly downloads: readonly string[];
}

export interface CrossBuild extends Leavings {
  readonly node: string;
  /** The platform's block of the YAML. */
  readonly yaml: string;
  /** `esp_platform` and `toolchain`, as ESPHome must have noted them. */
  readonly noted: readonly [espPlatform: string, toolchain: string];
  /** Changed in the sidecar afterwards. */
  readonly sidecar: Readonly<Record<string, unknown>>;
}

const environment = (node: string, file = 'firmware.bin'): string => `.pioenvs/${node}/${file}`;

const nativeEsp32 = (node: string): Leavings => ({
  firmware: `build/${node}.bin`,
  outputs: [
    ...[`${node}.bin`, `${node}.elf`, 'firmware.elf', 'firmware.ota.bin', 'firmware.factory.bin'],
    ...['bootloader/bootloader.bin', 'partition_table/partition-table.bin', 'ota_data_initial.bin'],
  ],
  idedata: '.json',
  component: 'esp32',
  downloads: ['firmware.factory.bin', 'firmware.ota.bin'],
});

/** As after `compile --skip-bootloader`, and after a failure to write the idedata, which ESPHome only warns of. */
const bareEsp32 = (node: string): Leavings => ({
  firmware: `build/${node}.bin`,
  outputs: [`${node}.bin`, `${node}.elf`, 'firmware.elf', 'firmware.ota.bin'],
  component: 'esp32',
  downloads: ['firmware.ota.bin'],
});

const esp32 = (node: string): Leavings => ({
  firmware: environment(node),
  outputs: [
    ...['firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin'],
    ...['bootloader.bin', 'partitions.bin', 'ota_data_initial.bin'],
  ],
  idedata: '.json',
  component: 'esp32',
  downloads: ['firmware.factory.bin', 'firmware.ota.bin'],
});

const esp8266 = (node: string): Leavings => ({
  firmware: environment(node),
  outputs: ['firmware.bin', 'firmware.elf'],
  idedata: '.json',
  component: 'esp8266',
  downloads: ['firmware.bin'],
});

const nativeEsp8266 = (node: string): Leavings => ({
  ...esp8266(node),
  outputs: ['firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin'],
  idedata: '.arduino.json',
});

const rp2 = (node: string): Leavings => ({
  firmware: environment(node),
  outputs: ['firmware.bin', 'firmware.elf', 'firmware.uf2', 'firmware.ota.bin'],
  idedata: '.json',
  component: 'rp2',
  downloads: ['firmware.uf2', 'firmware.ota.bin'],
});

const libreTiny = (node: string): Leavings => ({
  firmware: environment(node, 'firmware.uf2'),
  outputs: ['firmware.uf2', 'firmware.bin', 'raw_firmware.elf', 'firmware.json', 'ota.rbl', 'raw.bin'],
  idedata: '.json',
  program: 'raw_firmware.elf',
  component: 'libretiny',
  downloads: ['firmware.uf2', 'ota.rbl'],
});

/** What LibreTiny writes into `firmware.json`: one output to offer, one to keep. */
export const libreTinyList = JSON.stringify([
  { title: 'OTA', description: 'for updates', filename: 'ota.rbl', offset: null, public: true },
  { title: 'Raw', description: 'for the toolchain', filename: 'raw.bin', offset: 0, public: false },
]);

const nrf52 = (node: string): Leavings => ({
  firmware: environment(node),
  outputs: ['firmware.bin', 'firmware.elf', 'firmware.zip', 'zephyr/zephyr.uf2', 'zephyr/zephyr.hex'],
  idedata: '.json',
  component: 'nrf52',
  downloads: ['zephyr/zephyr.uf2', 'firmware.zip'],
});

const nativeNrf52 = (node: string): Leavings => ({
  firmware: environment(node),
  outputs: [
    ...['zephyr/zephyr.hex', 'zephyr/merged.hex', 'zephyr/app_update.bin', 'zephyr/zephyr/zephyr.bin'],
    'zephyr/zephyr/zephyr.elf',
  ],
  image: 'zephyr/app_update.bin',
  component: 'nrf52',
  downloads: ['zephyr/merged.hex', 'zephyr/app_update.bin'],
});

const host = (node: string): Leavings => ({
  firmware: environment(node, 'program'),
  outputs: ['program', 'build.ninja'],
  component: null,
  downloads: [],
});

function build(
  leavings: (node: string) => Leavings,
  node: string,
  yaml: string,
  noted: CrossBuild['noted'],
  sidecar: CrossBuild['sidecar'] = {},
): CrossBuild {
  return { node, yaml, noted, sidecar, ...leavings(node) };
}

const older = { esp_platform: 'RP2040', toolchain: null };
const nrf = 'board: adafruit_feather_nrf52840, bootloader: adafruit_nrf52_sd140_v6';

export const crossBuilds: readonly CrossBuild[] = [
  build(nativeEsp32, 'esp32-idf', 'esp32: {variant: ESP32}', ['ESP32', 'esp-idf']),
  build(bareEsp32, 'esp32s3-idf', 'esp32: {variant: ESP32S3}', ['ESP32S3', 'esp-idf']),
  build(esp32, 'esp32c3-pio', 'esp32: {variant: ESP32C3, toolchain: platformio}', ['ESP32C3', 'platformio']),
  build(nativeEsp8266, 'esp8266-arduino', 'esp8266: {board: d1_mini}', ['ESP8266', 'arduino']),
  build(esp8266, 'esp8266-pio', 'esp8266: {board: d1_mini, toolchain: platformio}', [
    'ESP8266',
    'platformio',
  ]),
  build(rp2, 'rp2', 'rp2: {board: rpipicow}', ['RP2', 'platformio']),
  build(rp2, 'rp2040-older', 'rp2040: {board: rpipicow}', ['RP2', 'platformio'], older),
  build(libreTiny, 'bk72xx', 'bk72xx: {board: cb2s}', ['BK72XX', 'platformio']),
  build(libreTiny, 'rtl87xx', 'rtl87xx: {board: wr3}', ['RTL87XX', 'platformio']),
  build(libreTiny, 'ln882x', 'ln882x: {board: generic-ln882hki}', ['LN882X', 'platformio']),
  build(nativeNrf52, 'nrf52-sdk', `nrf52: {${nrf}}`, ['NRF52', 'sdk-nrf']),
  build(nrf52, 'nrf52-pio', `nrf52: {${nrf}, toolchain: platformio}`, ['NRF52', 'platformio']),
  build(host, 'host', 'host:', ['HOST', 'host']),
];
