/**
 * The pin of a public key: people compare it before they pair, and afterwards it authorises the peer. It depends only on
 * the key from the handshake, not on a peer's claims. Show the full text beside the seven pictures, which hold only 42 bits
 * and can be imitated by a patient attacker.
 */
import { createHash } from 'node:crypto';

import { quote, ReceiverError } from '../errors.js';

/** The SHA-256 of a raw 32-byte public key, as 64 lower-case hex digits. */
export function pinOf(publicKey: Uint8Array): string {
  return createHash('sha256').update(publicKey).digest('hex');
}

/** The pin as 32 pairs of digits separated by single spaces. */
export function pinText(pin: string): string {
  return pin.replace(/..(?!$)/g, '$& ');
}

export interface PinPicture {
  readonly emoji: string;
  readonly name: string;
}

/**
 * The seven pictures of a pin (Device Builder 1.26; the vocabulary of Matrix). Throws `OPTIONS` for an incomplete pin,
 * whose pictures would look just as valid.
 */
export function pinPictures(pin: string): readonly PinPicture[] {
  if (!/^[0-9a-f]{64}$/.test(pin))
    throw new ReceiverError('OPTIONS', `invalid pin ${quote(pin)}: expected 64 lower-case hex digits`);
  const bits = BigInt(`0x${pin.slice(0, 11)}`);
  return [38n, 32n, 26n, 20n, 14n, 8n, 2n].map(
    (shift) => pictures[Number((bits >> shift) & 63n)] as PinPicture,
  );
}

const table = `
🐶 Dog, 🐱 Cat, 🦁 Lion, 🐎 Horse, 🦄 Unicorn, 🐷 Pig, 🐘 Elephant, 🐰 Rabbit,
🐼 Panda, 🐓 Rooster, 🐧 Penguin, 🐢 Turtle, 🐟 Fish, 🐙 Octopus, 🦋 Butterfly, 🌷 Flower,
🌳 Tree, 🌵 Cactus, 🍄 Mushroom, 🌏 Globe, 🌙 Moon, ☁️ Cloud, 🔥 Fire, 🍌 Banana,
🍎 Apple, 🍓 Strawberry, 🌽 Corn, 🍕 Pizza, 🎂 Cake, ❤️ Heart, 😀 Smiley, 🤖 Robot,
🎩 Hat, 👓 Glasses, 🔧 Wrench, 🎅 Santa, 👍 Thumbs up, ☂️ Umbrella, ⌛️ Hourglass, ⏰ Clock,
🎁 Gift, 💡 Light bulb, 📕 Book, ✏️ Pencil, 📎 Paperclip, ✂️ Scissors, 🔒 Lock, 🔑 Key,
🔨 Hammer, ☎️ Telephone, 🏁 Flag, 🚂 Train, 🚲 Bicycle, ✈️ Aeroplane, 🚀 Rocket, 🏆 Trophy,
⚽️ Ball, 🎸 Guitar, 🎺 Trumpet, 🔔 Bell, ⚓️ Anchor, 🎧 Headphones, 📁 Folder, 📌 Pin`;

/** All 64 pictures in their fixed order. */
export const pictures: readonly PinPicture[] = table
  .trim()
  .split(/,\s+/)
  .map((entry) => {
    const space = entry.indexOf(' ');
    return { emoji: entry.slice(0, space), name: entry.slice(space + 1) };
  });
