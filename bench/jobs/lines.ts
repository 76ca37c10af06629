/** The lines that travel, all of one length, so that a follower can count them without reading them. */

export const jobId = 'bench0123456';

/** As long as a compiler's line usually is. */
export function lineOf(number: number): string {
  return `[${String(number).padStart(7, '0')}] CXX obj/src/esphome/components/sensor/sensor.cpp.o\n`;
}

/** The same for `seq -f`, without its end. */
export const linePattern = '[%07.0f] CXX obj/src/esphome/components/sensor/sensor.cpp.o';

export function frameOf(line: string): { readonly type: 'job_output' } & Readonly<Record<string, string>> {
  return { type: 'job_output', job_id: jobId, stream: 'stdout', line };
}

const tagBytes = 16;

/** Of the message that carries one of the lines. */
export const messageBytes = JSON.stringify(frameOf(lineOf(0))).length + tagBytes;
