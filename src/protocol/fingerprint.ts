/**
 * The pin: what people compare so that they pair with the machine they mean, and what authorises a peer
 * afterwards. It is derived from the key seen in the handshake and from nothing that a peer says about itself.
 *
 * The seven pictures hold 42 bits of it, which a patient attacker can imitate: show the full text beside them.
 */
import { createHash } from 'node:crypto';

import { quote, ReceiverError } from '../errors.js';

/** The pin of a raw 32-byte public key: its SHA-256, 64 lower-case hex digits. */
export function pinOf(publicKey: Uint8Array): string {
  return createHash('sha256').update(publicKey).digest('hex');
}

/** The pin as 32 pairs with single spaces between them. */
export function pinText(pin: string): string {
  return pin.replace(/..(?!$)/g, '$& ');
}

export interface PinPicture {
  readonly emoji: string;
  readonly name: string;
}

/**
 * The seven pictures of a pin (Device Builder 1.26; the vocabulary of Matrix). Throws `OPTIONS` for anything but a whole
 * pin: the pictures of half a one look as good.
 */
export function pinPictures(pin: string): readonly PinPicture[] {
  if (!/^[0-9a-f]{64}$/.test(pin))
    throw new ReceiverError('OPTIONS', `${quote(pin)} is no pin of 64 lower-case hex digits`);
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

/** All 64 pictures in their frozen order. */
export const pictures: readonly PinPicture[] = table
  .trim()
  .split(/,\s+/)
  .map((entry) => {
    const space = entry.indexOf(' ');
    return { emoji: entry.slice(0, space), name: entry.slice(space + 1) };
  });
