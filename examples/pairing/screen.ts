/** What the other dashboard prints: its words, and a fingerprint in all three forms. */
import { pinPictures, pinText } from 'koa-esphome-receiver/offloader';

const charactersOfHalf = 47;

export function show(title: string, pin: string): void {
  const pictures = pinPictures(pin);
  const text = pinText(pin);
  console.log(`${title}:`);
  console.log(`  ${pictures.map(({ emoji }) => emoji).join(' ')}`);
  console.log(`  ${pictures.map(({ name }) => name).join(', ')}`);
  console.log(`  ${text.slice(0, charactersOfHalf)}`);
  console.log(`  ${text.slice(charactersOfHalf + 1)}`);
}
