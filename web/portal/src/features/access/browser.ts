/** `Firefox on Linux` from a user agent; the raw text stays in the tooltip. */
export function browserName(agent: string | null): string {
  if (agent === null || agent === "") return "Unknown client";
  const browser = /Edg\//.test(agent)
    ? "Edge"
    : /Firefox\//.test(agent)
      ? "Firefox"
      : /Chrom(e|ium)\//.test(agent)
        ? "Chrome"
        : /Safari\//.test(agent)
          ? "Safari"
          : (agent.split(/[/ ]/)[0] ?? agent);
  const system = /Windows/.test(agent)
    ? "Windows"
    : /iPhone|iPad/.test(agent)
      ? "iOS"
      : /Mac OS X/.test(agent)
        ? "macOS"
        : /Android/.test(agent)
          ? "Android"
          : /Linux|X11/.test(agent)
            ? "Linux"
            : null;
  return system === null ? browser : `${browser} on ${system}`;
}
