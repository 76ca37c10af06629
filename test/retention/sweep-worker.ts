/** Sweeps and resets everything not in use, in a loop, until it is killed. */
import process from 'node:process';

import { messageOf } from '../../src/errors.js';
import { impatientKeeper } from './kill-place.js';

const [base = ''] = process.argv.slice(2);

process.once('message', () => {
  const work = async (): Promise<never> => {
    const { retention } = await impatientKeeper(base);
    process.send?.('ready');
    for (;;) await (Math.random() < 0.5 ? retention.sweep() : retention.reset('all'));
  };
  work().catch((error: unknown) => process.send?.(messageOf(error)));
});
process.send?.('up');
