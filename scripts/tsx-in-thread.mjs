/** Lets a worker thread run TypeScript: `--import tsx` registers itself in the main thread only (Node 20, tsx 4). */
import { register } from 'tsx/esm/api';

register();
