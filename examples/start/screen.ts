/** The output of the demo: numbered steps, and a build log above a progress bar. */
import { plainText, readProgress, startOfProgress } from 'koa-esphome-receiver/offloader';

const width = 30;

export function say(step: string, text: string): void {
  console.log(`\n${step}. ${text}`);
}

export interface BuildScreen {
  line(this: void, text: string): void;
  end(): void;
}

/** Shows each line of a build; on a terminal with a progress bar below. */
export function showBuild(): BuildScreen {
  const { stdout } = process;
  let progress = startOfProgress();
  let drawn = false;

  function clearBar(): void {
    if (drawn) stdout.write('\r\x1b[K');
    drawn = false;
  }

  return {
    line(text) {
      progress = readProgress(progress, text);
      clearBar();
      stdout.write(`   ${plainText(text).trimEnd()}\n`);
      if (!stdout.isTTY) return;
      const percent = progress.percent ?? 0;
      const full = Math.round((percent / 100) * width);
      stdout.write(`   [${'#'.repeat(full)}${'.'.repeat(width - full)}] ${percent} % ${progress.phase}`);
      drawn = true;
    },
    end: clearBar,
  };
}
