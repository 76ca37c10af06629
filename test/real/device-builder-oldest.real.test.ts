/** The oldest Device Builder known to work as the client. A file of its own, because it takes minutes. */
import { test } from 'node:test';

import { spendFirstDay } from './first-day.js';
import { oldestDeviceBuilder } from './support.js';

test(`The oldest Device Builder known to work, ${oldestDeviceBuilder}, pairs, builds, builds in bulk, cleans and resets`, (t) =>
  spendFirstDay(t, oldestDeviceBuilder));
