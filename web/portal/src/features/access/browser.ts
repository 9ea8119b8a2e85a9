/** `Firefox on Linux` from a user agent; the raw text stays in the tooltip. */
export function browserName(agent: string): string {
  if (agent === "") return "Unknown client";
  const browser = agent.includes("Edg/")
    ? "Edge"
    : agent.includes("Firefox/")
      ? "Firefox"
      : /Chrom(e|ium)\//.test(agent)
        ? "Chrome"
        : agent.includes("Safari/")
          ? "Safari"
          : (agent.split(/[/ ]/)[0] ?? agent);
  const system = agent.includes("Windows")
    ? "Windows"
    : /iPhone|iPad/.test(agent)
      ? "iOS"
      : agent.includes("Mac OS X")
        ? "macOS"
        : agent.includes("Android")
          ? "Android"
          : /Linux|X11/.test(agent)
            ? "Linux"
            : null;
  return system === null ? browser : `${browser} on ${system}`;
}
