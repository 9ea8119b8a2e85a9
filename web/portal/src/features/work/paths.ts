/** `/a` and `b` are `/a/b`. */
export function join(directory: string, name: string): string {
  return `${directory === "/" ? "" : directory}/${name.replace(/^\/+/, "")}`;
}

/** The directory above; the root is above itself. */
export function parent(path: string): string {
  const cut = path.lastIndexOf("/");
  return cut <= 0 ? "/" : path.slice(0, cut);
}

/** Each directory on the way to a path, without the root. */
export function crumbs(path: string): { name: string; path: string }[] {
  const names = path.split("/").filter((name) => name !== "");
  return names.map((name, index) => ({ name, path: `/${names.slice(0, index + 1).join("/")}` }));
}
