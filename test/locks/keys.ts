/** The one build directory that the tests of the locks fight for. */
import type { LeaseOptions } from '../../src/locks/lease.js';
import { dashboardId, deviceFromFile } from '../../src/paths/segments.js';

export const testKey: LeaseOptions['key'] = {
  dashboardId: dashboardId('dashboard-0001'),
  device: deviceFromFile('kitchen.yaml'),
};
