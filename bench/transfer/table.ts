/** The figures side by side: ours, what they are compared with, and whether the limit is met. */

export interface Row {
  readonly what: string;
  readonly ours: number;
  /** The bare loop's figure of the same run. */
  readonly bare?: number;
  /** The original's, when it is installed. */
  readonly original?: number | undefined;
  readonly unit: 'MB/s' | 'lines/s' | '/s' | 'ms' | 'MiB' | 'KiB' | 'x';
  /** Ours to what the limit compares with. Undefined: the limit is one for our figure itself, or there is nothing. */
  readonly ratio?: number | undefined;
  /** Whether the limit is one for the ratio; below 1 it always is. */
  readonly isRatio?: boolean;
  readonly limit: { readonly atLeast: number } | { readonly atMost: number };
}

/** The middle one, or the mean of the two in the middle. */
export function median(figures: readonly number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? NaN) + (sorted[Math.floor(middle)] ?? NaN)) / 2;
}

const widths = [40, 11, 11, 11, 7, 15, 8];

export function printTable(rows: readonly Row[]): void {
  print(['', 'ours', 'bare loop', 'original', 'ratio', 'limit', '']);
  for (const row of rows) {
    const { what, ours, bare, original, ratio, unit, limit } = row;
    const shown = [ours, bare, original].map((value) => (value === undefined ? '-' : figure(value, unit)));
    const [word, bound] = 'atLeast' in limit ? ['at least', limit.atLeast] : ['at most', limit.atMost];
    const isRatio = isForRatio(row);
    const bounded = isRatio ? bound.toFixed(2) : figure(bound, unit);
    const verdict = isRatio && ratio === undefined ? 'unknown' : isMet(row) ? 'met' : 'missed';
    print([what, ...shown, ratio?.toFixed(2) ?? '-', `${word} ${bounded}`, verdict]);
  }
}

function isMet(row: Row): boolean {
  const { ours, ratio, limit } = row;
  const [isAtLeast, bound] = 'atLeast' in limit ? [true, limit.atLeast] : [false, limit.atMost];
  const judged = isForRatio(row) ? (ratio ?? NaN) : ours;
  return isAtLeast ? judged >= bound : judged <= bound;
}

function isForRatio({ limit, isRatio = false }: Row): boolean {
  return isRatio || ('atLeast' in limit ? limit.atLeast : limit.atMost) < 1;
}

function figure(value: number, unit: string): string {
  return `${value.toFixed(value < 10 ? 1 : 0)} ${unit}`;
}

function print(cells: readonly string[]): void {
  const [what = '', ...rest] = cells;
  console.log(
    what.padEnd(widths[0] ?? 0) + rest.map((cell, at) => cell.padStart(widths[at + 1] ?? 0)).join(' '),
  );
}
