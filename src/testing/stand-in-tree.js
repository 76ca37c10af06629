/**
 * The files of ESPHome 2026.10 on disk for each platform: names, paths and the sidecar's keys are real, contents are our
 * own short texts. A STAND-IN for tests that need a build's files but no firmware; the real tests compare it with the real
 * ESPHome. It is plain JavaScript, so that the stand-in starts without a loader.
 */

export const version = '2026.10.0';

/**
 * @typedef {object} Platform
 * @property {string} espPlatform
 * @property {string} core
 * @property {string} framework
 * @property {string} toolchain
 * @property {string | null} frameworkVersion
 * @property {readonly string[]} loads integrations that are loaded automatically
 * @property {string} firmware below the build path, as in the sidecar
 * @property {string} [image] written in its place
 * @property {readonly string[]} project written before the build
 * @property {readonly string[]} outputs written by the build, besides the firmware
 */

const idfProject = [
  ...['CMakeLists.txt', 'src/CMakeLists.txt', 'src/idf_component.yml', 'partitions.csv', 'version.txt'],
  ...['sdkconfig.{name}', 'sdkconfig.{name}.esphomeinternal', 'exclude_components.esphomeinternal'],
];
const idfOutputs = [
  ...[
    'build/firmware.factory.bin',
    'build/firmware.ota.bin',
    'build/firmware.elf',
    'build/flasher_args.json',
  ],
  ...[
    'build/bootloader/bootloader.bin',
    'build/partition_table/partition-table.bin',
    'build/ota_data_initial.bin',
  ],
  ...['build/compile_commands.json', 'dependencies.lock'],
];
const hostOutputs = [
  ...['build.ninja', '.ninja_log', '.ninja_deps', 'compile_commands.json', '.compile_commands.stamp'],
  ...[
    'esphome_pch.h',
    'esphome_pch_src.h',
    'esphome_pch.h.gch',
    'esphome_pch.h.gch.sum',
    'obj/src/main.cpp.o',
  ],
].map(inEnv);
const tinyOutputs = ['firmware.bin', 'raw_firmware.elf', 'firmware.json'].map(inEnv);
/** @type {Readonly<Record<string, readonly string[]>>} what each family of LibreTiny offers for its own updates */
const tinyImages = {
  bk72xx: ['bk7231n_app.ota.rbl', 'bk7231n_app.ota.ug.bin'],
  rtl87xx: ['image_ota1.0x00B000.bin', 'image_ota2.0x0D0000.bin'],
  ln882x: ['image_ota.bin'],
};

/** @type {ReadonlyMap<string, Platform>} by the platform's key in the YAML */
export const platforms = new Map(
  Object.entries({
    host: platform('HOST', 'host', 'host', 'host', 'program', [], hostOutputs, ['mdns', 'network']),
    esp8266: platform(
      'ESP8266',
      'esp8266',
      'arduino',
      'arduino',
      'firmware.bin',
      [],
      [...['firmware.factory.bin', 'firmware.ota.bin', 'firmware.elf', 'build.ninja'].map(inEnv)],
    ),
    esp32: {
      ...platform('ESP32', 'esp32', 'esp-idf', 'esp-idf', '', idfProject, idfOutputs),
      firmware: 'build/{name}.bin',
      frameworkVersion: '5.5.6',
    },
    rp2: platform(
      'RP2',
      'rp2',
      'arduino',
      'platformio',
      'firmware.bin',
      ['platformio.ini'],
      [...['firmware.uf2', 'firmware.factory.uf2', 'firmware.ota.bin', 'firmware.elf'].map(inEnv)],
    ),
    bk72xx: libreTiny('bk72xx'),
    rtl87xx: libreTiny('rtl87xx'),
    ln882x: libreTiny('ln882x'),
    nrf52: {
      ...platform(
        'NRF52',
        'nrf52',
        'zephyr',
        'sdk-nrf',
        'firmware.bin',
        ['platformio.ini'],
        [
          ...['zephyr/zephyr.hex', 'zephyr/merged.hex', 'zephyr/zephyr/zephyr.bin'],
          'zephyr/zephyr/zephyr.elf',
        ].map(inEnv),
      ),
      image: inEnv('zephyr/app_update.bin'),
      frameworkVersion: '2.9.2',
    },
  }),
);

/**
 * The content of an output that is read by others: LibreTiny's list of what can be downloaded. Null for any other file.
 * @param {Platform} target
 * @param {string} file
 */
export function contentOf({ core }, file) {
  const images = tinyImages[core];
  if (images === undefined || !file.endsWith('/firmware.json')) return null;
  const entry = (/** @type {string} */ filename, /** @type {boolean} */ isPublic) => ({
    ...{ title: filename, description: 'of the stand-in', filename, offset: null, public: isPublic },
  });
  return JSON.stringify([...images.map((image) => entry(image, true)), entry('raw_firmware.bin', false)]);
}

/** Written for every platform before the build. */
export const commonProject = ['README.txt', 'src/esphome.h', 'src/esphome/core/application.cpp'];

/**
 * @param {string} espPlatform
 * @param {string} core
 * @param {string} framework
 * @param {string} toolchain
 * @param {string} firmware a leaf below `.pioenvs/<name>`
 * @param {readonly string[]} project
 * @param {readonly string[]} outputs
 * @param {readonly string[]} loads
 * @returns {Platform}
 */
function platform(espPlatform, core, framework, toolchain, firmware, project, outputs, loads = []) {
  return {
    ...{ espPlatform, core, framework, toolchain, project, outputs },
    firmware: inEnv(firmware),
    loads: [...loads, 'preferences'],
    frameworkVersion: null,
  };
}

/** @param {string} core @returns {Platform} */
function libreTiny(core) {
  const outputs = [...tinyOutputs, ...(tinyImages[core] ?? []).map(inEnv)];
  return platform(
    core.toUpperCase(),
    core,
    'arduino',
    'platformio',
    'firmware.uf2',
    ['platformio.ini'],
    outputs,
  );
}

/** @param {string} leaf */
function inEnv(leaf) {
  return `.pioenvs/{name}/${leaf}`;
}

/**
 * The sidecar, with its keys in ESPHome's order.
 * @param {{ name: string, friendlyName: string | null, hasNetwork: boolean, integrations: readonly string[] }} node
 * @param {Platform} target
 * @param {string} buildPath
 */
export function storageJson(node, target, buildPath) {
  return {
    storage_version: 1,
    name: node.name,
    friendly_name: node.friendlyName,
    comment: null,
    esphome_version: version,
    src_version: 1,
    address: node.hasNetwork ? `${node.name}.local` : null,
    web_port: null,
    esp_platform: target.espPlatform,
    build_path: buildPath,
    firmware_bin_path: `${buildPath}/${target.firmware.replaceAll('{name}', node.name)}`,
    loaded_integrations: [...new Set([...node.integrations, ...target.loads])].toSorted(),
    loaded_platforms: [],
    no_mdns: false,
    framework: target.framework,
    core_platform: target.core,
    toolchain: target.toolchain,
    area: null,
    framework_version: target.frameworkVersion,
  };
}

/**
 * PlatformIO's own object, or the shape that the native toolchains share.
 * @param {Platform} target
 * @param {string} name
 * @param {string} buildPath
 */
export function idedata(target, name, buildPath) {
  const elf = target.core in tinyImages ? 'raw_firmware.elf' : 'firmware.elf';
  const program = `${buildPath}/.pioenvs/${name}/${target.core === 'host' ? 'program' : elf}`;
  if (target.toolchain === 'platformio') {
    return {
      ...{ build_type: 'release', env_name: name, libsource_dirs: [], defines: [] },
      ...{
        includes: { build: [`${buildPath}/src`], compatlib: [], toolchain: [] },
        cc_flags: [],
        cxx_flags: [],
      },
      ...{ cc_path: '/usr/bin/gcc', cxx_path: '/usr/bin/g++', gdb_path: '/usr/bin/gdb', prog_path: program },
      ...{ svd_path: null, compiler_type: 'gcc', targets: [], extra: { flash_images: [] } },
    };
  }
  return {
    ...{ cc_path: '/usr/bin/gcc', cxx_path: '/usr/bin/g++', cxx_flags: ['-std=gnu++20'], defines: [] },
    includes: { build: [`${buildPath}/src`], toolchain: ['/usr/include'] },
    prog_path: target.toolchain === 'esp-idf' ? `${buildPath}/build/firmware.elf` : program,
  };
}
