/** A build beside the removal: works for each object, writes it, and says how many there are when asked. */
import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';

const [directory = ''] = process.argv.slice(2);
const source = Buffer.alloc(500_000, 1);
const kept = 200;
let objects = 0;

process.on('message', () => {
  process.send?.(objects);
  objects = 0;
});
await mkdir(directory, { recursive: true });
process.send?.('ready');
for (let n = 0; ; n += 1) {
  const object = createHash('sha256').update(source).digest();
  await writeFile(join(directory, `object-${n % kept}`), Buffer.alloc(20_000, object));
  objects += 1;
}
