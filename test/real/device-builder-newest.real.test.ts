/** The newest pre-release of Device Builder as the client. A file of its own, because it takes minutes. */
import { test } from 'node:test';

import { spendFirstDay } from './first-day.js';
import { newestDeviceBuilder } from './support.js';

test(`The newest pre-release of Device Builder, ${newestDeviceBuilder}, pairs, builds, builds in bulk, cleans and resets`, (t) =>
  spendFirstDay(t, newestDeviceBuilder));
