/** The one page, made on the server. */
import { readFileSync } from 'node:fs';

import type { Device } from './devices.js';
import { html, type Html } from './html.js';

export const style = readFileSync(new URL('style.css', import.meta.url), 'utf8');

export function page(devices: readonly Device[]): string {
  const own = devices.filter(({ peer }) => peer === null);
  const remote = devices.filter(({ peer }) => peer !== null);
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>ESPHome devices</title>
        <link rel="stylesheet" href="/style.css" />
      </head>
      <body>
        <h1>ESPHome devices</h1>
        ${section('On this dashboard', own)} ${section('Built for other dashboards', remote)}
      </body>
    </html>`.html;
}

function section(title: string, devices: readonly Device[]): Html {
  if (devices.length === 0)
    return html`<h2>${title}</h2>
      <p class="quiet">None.</p>`;
  return html`<h2>${title}</h2>
    <table>
      <thead>
        <tr>
          <th>Device</th>
          <th>ESPHome</th>
          <th>Configuration</th>
          <th>Size</th>
          <th>Download</th>
          <th></th>
        </tr>
      </thead>
      <tbody>
        ${devices.map(row)}
      </tbody>
    </table>`;
}

function row(device: Device): Html {
  const { configuration, peer, name, platform, esphomeVersion, configHash, bytes, files, problems } = device;
  const query = `configuration=${encodeURIComponent(configuration)}`;
  return html`<tr>
    <td>
      <a href="/info?${query}"><bdi>${name}</bdi></a>
      <div class="quiet">
        ${platform ?? 'unknown platform'}${peer === null ? '' : html`, for <bdi>${peer}</bdi>`}
      </div>
      ${problems.map((problem) => html`<div class="problem">${problem}</div>`)}
    </td>
    <td>${esphomeVersion ?? '–'}</td>
    <td><code>${configHash ?? '–'}</code></td>
    <td>${bytes === null ? '–' : sizeOf(bytes)}</td>
    <td>
      ${files.map(
        (file) =>
          html`<a href="/download.bin?${query}&amp;file=${encodeURIComponent(file.name)}"
              ><bdi>${file.name}</bdi></a
            >
            <span class="quiet">${sizeOf(file.bytes)}</span><br />`,
      )}
    </td>
    <td class="actions">
      ${peer === null ? button('archive', 'Archive', query) : ''}
      <details>
        <summary>Delete</summary>
        ${button('delete', 'Yes, delete it', query)}
      </details>
    </td>
  </tr>`;
}

function button(route: string, text: string, query: string): Html {
  return html`<form method="post" action="/${route}?${query}"><button>${text}</button></form>`;
}

/** In powers of 1000, as disks are sold. */
export function sizeOf(bytes: number): string {
  const power = bytes < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(bytes) / 3));
  const unit = ['B', 'kB', 'MB', 'GB'][power] ?? '';
  return `${power === 0 ? bytes : (bytes / 1000 ** power).toFixed(1)} ${unit}`;
}
