import { test } from 'node:test';

import * as properties from './properties.js';

const runs = 10_000;

test('any text gives a key, null or a typed error, and accepted text stays inside, on both platforms', () => {
  properties.parsesTotallyAndStaysInside(runs);
});

test('a traversal-shaped mutation of a valid configuration never resolves outside', () => {
  properties.mutationsNeverReachAnother(runs);
});

test('parsing a formatted configuration gives its key', () => {
  properties.roundTrips(runs);
});

test('two different accepted names never share a directory, whatever a file system folds', () => {
  properties.namesNeverShareADirectory(runs);
});

test('a valid configuration is accepted, and a deeper file has the same key', () => {
  properties.goodStringsAreAccepted(runs);
});
