import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { Button as AriaButton } from "react-aria-components/Button";
import { DropZone } from "react-aria-components/DropZone";
import { FileTrigger } from "react-aria-components/FileTrigger";
import { Form } from "react-aria-components/Form";
import { ApiError } from "~/api/client";
import { keys, queries } from "~/api/queries";
import { uploadArchive, uploadFile } from "~/api/upload";
import { archiveUrl, contentUrl, work, type FileEntry, type Files } from "~/api/workloads";
import { explain, InlineError } from "~/app/problem";
import { Button, IconButton } from "~/ui/button";
import { cx } from "~/ui/cx";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { bytes, percent } from "~/ui/format";
import { CrossIcon, FileIcon, FolderIcon, MoreIcon, UploadIcon } from "~/ui/icons";
import { Menu } from "~/ui/menu";
import { Progress } from "~/ui/progress";
import { Bone } from "~/ui/states";
import { notify } from "~/ui/toast";
import { crumbs, join, parent } from "./paths";

const MAX_BYTES = 256 * 1024 * 1024;

interface Upload {
  id: number;
  name: string;
  size: number;
  sent: number;
  error: string | null;
  cancel: AbortController;
}

function refused(title: string) {
  return (error: Error) => {
    notify({ tone: "bad", title, text: explain(error).what });
  };
}

/** Lets the browser fetch something as a file. */
function save(url: string, name: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
}

/** The files of a sandbox: look, fetch, put, remove. */
export function FileBrowser({ at, start = "/", refusal, className }: { at: Files; start?: string; refusal: string | null; className?: string }) {
  const [path, setPath] = useState(start);
  const [asking, setAsking] = useState<"directory" | FileEntry | null>(null);
  const archive = useRef<HTMLInputElement>(null);
  const client = useQueryClient();
  const listing = useQuery({ ...queries.files(at, path), enabled: refusal === null });
  const refresh = () => client.invalidateQueries({ queryKey: keys.files(at, path) });
  const { uploads, put, dismiss } = useUploads(at, () => void refresh());
  const missing = listing.error instanceof ApiError && listing.error.status === 404;

  return (
    <section aria-label="Files" className={cx("flex min-h-0 min-w-0 flex-col overflow-hidden rounded-lg border border-line bg-panel", className)}>
      <div className="flex min-h-11 items-center gap-1 border-b border-line py-1.5 pr-2 pl-3">
        <Crumbs path={path} onOpen={setPath} />
        <span className="ml-auto inline-flex shrink-0 items-center gap-1">
          <input
            ref={archive}
            type="file"
            accept=".tar,application/x-tar"
            hidden
            aria-label="Tar archive to unpack"
            onChange={(event) => {
              put([...(event.target.files ?? [])], path, true);
              event.target.value = "";
            }}
          />
          <FileTrigger
            allowsMultiple
            onSelect={(files) => {
              put([...(files ?? [])], path);
            }}
          >
            <Button size="sm" disabledReason={refusal}>
              <UploadIcon width={14} height={14} /> Upload
            </Button>
          </FileTrigger>
          <Menu
            label="Directory"
            entries={[
              { type: "item", id: "mkdir", label: "New directory", reason: refusal, onAction: () => { setAsking("directory"); } },
              { type: "item", id: "archive", label: "Download as archive", reason: refusal, onAction: () => { save(archiveUrl(at, path), `${crumbs(path).at(-1)?.name ?? "root"}.tar`); } },
              { type: "item", id: "unpack", label: "Unpack a tar archive here", reason: refusal, onAction: () => { archive.current?.click(); } },
              { type: "item", id: "refresh", label: "Refresh", reason: refusal, onAction: () => void refresh() },
            ]}
          >
            <IconButton label="Directory actions">
              <MoreIcon />
            </IconButton>
          </Menu>
        </span>
      </div>
      {refusal !== null ? (
        <p className="m-auto max-w-xs p-6 text-center text-sm text-muted">{refusal} Its files can be seen while it runs.</p>
      ) : (
        <DropZone
          aria-label="Files dropped here are uploaded"
          onDrop={(event) => {
            const dropped = event.items.flatMap((item) => (item.kind === "file" ? [item.getFile()] : []));
            void Promise.all(dropped).then((files) => {
              put(files, path);
            });
          }}
          className="flex min-h-0 flex-1 flex-col overflow-auto data-drop-target:bg-accent-soft"
        >
          {listing.data === undefined ? (
            listing.isError ? (
              <div role="alert" className="flex flex-col items-start gap-3 p-4 text-sm">
                <p>{missing ? "This directory is gone." : explain(listing.error).what}</p>
                <span className="flex gap-2">
                  <Button size="sm" onPress={() => void listing.refetch()}>
                    Try again
                  </Button>
                  {path !== "/" ? (
                    <Button
                      size="sm"
                      onPress={() => {
                        setPath(parent(path));
                      }}
                    >
                      Go up
                    </Button>
                  ) : null}
                </span>
              </div>
            ) : (
              <div role="status" aria-label="Loading files" className="flex flex-col gap-3 p-4">
                <Bone className="h-3 w-40" />
                <Bone className="h-3 w-28" />
                <Bone className="h-3 w-36" />
              </div>
            )
          ) : (
            <Entries
              entries={listing.data}
              path={path}
              at={at}
              onOpen={setPath}
              onDelete={setAsking}
            />
          )}
        </DropZone>
      )}
      {uploads.length > 0 ? (
        <ul aria-label="Uploads" className="max-h-40 overflow-auto border-t border-line text-sm">
          {uploads.map((upload) => (
            <UploadLine
              key={upload.id}
              upload={upload}
              onDismiss={() => {
                dismiss(upload);
              }}
            />
          ))}
        </ul>
      ) : null}
      <Dialog
        title="New directory"
        isOpen={asking === "directory"}
        onClose={() => {
          setAsking(null);
        }}
      >
        <DirectoryForm
          at={at}
          path={path}
          onClose={() => {
            setAsking(null);
            void refresh();
          }}
        />
      </Dialog>
      <Dialog
        title={typeof asking === "object" && asking !== null ? `Delete ${asking.name}` : "Delete"}
        role="alertdialog"
        isOpen={typeof asking === "object" && asking !== null}
        onClose={() => {
          setAsking(null);
        }}
      >
        {typeof asking === "object" && asking !== null ? (
          <DeleteForm
            at={at}
            entry={asking}
            onClose={() => {
              setAsking(null);
              void refresh();
            }}
          />
        ) : null}
      </Dialog>
    </section>
  );
}

let uploadId = 0;

function useUploads(at: Files, onDone: () => void) {
  const [uploads, setUploads] = useState<Upload[]>([]);
  const change = (id: number, part: Partial<Upload>) => {
    setUploads((list) => list.map((item) => (item.id === id ? { ...item, ...part } : item)));
  };
  const put = (files: File[], path: string, unpack = false) => {
    for (const file of files) {
      const id = (uploadId += 1);
      const cancel = new AbortController();
      const tooBig = file.size > MAX_BYTES;
      setUploads((list) => [...list, { id, name: file.name, size: file.size, sent: 0, error: tooBig ? `It is larger than ${bytes(MAX_BYTES)}.` : null, cancel }]);
      if (tooBig) continue;
      const onProgress = (sent: number) => {
        change(id, { sent });
      };
      const sending = unpack ? uploadArchive(at, path, file, onProgress, cancel.signal) : uploadFile(at, join(path, file.name), file, onProgress, cancel.signal);
      sending.then(
        () => {
          setUploads((list) => list.filter((item) => item.id !== id));
          onDone();
          notify({ tone: "good", title: `${file.name} ${unpack ? "unpacked" : "uploaded"}`, text: `${bytes(file.size)} to ${path}` });
        },
        (error: unknown) => {
          if (cancel.signal.aborted) setUploads((list) => list.filter((item) => item.id !== id));
          else change(id, { error: explain(error).what });
        },
      );
    }
  };
  const dismiss = (upload: Upload) => {
    upload.cancel.abort();
    setUploads((list) => list.filter((item) => item.id !== upload.id));
  };
  return { uploads, put, dismiss };
}

function UploadLine({ upload, onDismiss }: { upload: Upload; onDismiss: () => void }) {
  const done = percent(upload.sent, upload.size);
  const text = upload.sent >= upload.size ? "Writing" : `${bytes(upload.sent)} of ${bytes(upload.size)}`;
  return (
    <li className="flex items-center gap-3 border-b border-line py-2 pr-2 pl-3 last:border-b-0">
      <div className="flex min-w-0 flex-1 flex-col gap-1">
        <span className="flex justify-between gap-3">
          <span className="truncate">{upload.name}</span>
          <span className={cx("tabular shrink-0 text-xs", upload.error === null ? "text-muted" : "sr-only")}>{text}</span>
        </span>
        {upload.error === null ? (
          <Progress label={`Upload of ${upload.name}`} part={done / 100} text={text} />
        ) : (
          <span role="alert" className="text-xs text-bad-text">
            {upload.error}
          </span>
        )}
      </div>
      <IconButton label={upload.error === null ? `Cancel upload of ${upload.name}` : `Dismiss ${upload.name}`} onPress={onDismiss}>
        <CrossIcon width={12} height={12} />
      </IconButton>
    </li>
  );
}

function Crumbs({ path, onOpen }: { path: string; onOpen: (path: string) => void }) {
  const all = crumbs(path);
  const link = "max-w-32 truncate rounded-sm px-1 font-mono text-sm text-muted data-hovered:text-fg";
  return (
    <nav aria-label="Directory" className="min-w-0 flex-1 overflow-x-auto">
      <ol className="flex items-center whitespace-nowrap">
        <li>
          <AriaButton
            aria-label="Root directory"
            {...(all.length === 0 ? { "aria-current": "location" as const } : {})}
            className={link}
            onPress={() => {
              onOpen("/");
            }}
          >
            /
          </AriaButton>
        </li>
        {all.map((crumb, index) => (
          <li key={crumb.path} className="flex items-center">
            {index > 0 ? (
              <span aria-hidden="true" className="text-faint">
                /
              </span>
            ) : null}
            <AriaButton
              {...(index === all.length - 1 ? { "aria-current": "location" as const } : {})}
              className={cx(link, index === all.length - 1 && "font-medium text-fg")}
              onPress={() => {
                onOpen(crumb.path);
              }}
            >
              {crumb.name}
            </AriaButton>
          </li>
        ))}
      </ol>
    </nav>
  );
}

function order(a: FileEntry, b: FileEntry): number {
  const isDir = (entry: FileEntry) => (entry.type === "dir" ? 0 : 1);
  return isDir(a) - isDir(b) || a.name.localeCompare(b.name, undefined, { numeric: true });
}

function Entries({
  entries,
  path,
  at,
  onOpen,
  onDelete,
}: {
  entries: readonly FileEntry[];
  path: string;
  at: Files;
  onOpen: (path: string) => void;
  onDelete: (entry: FileEntry) => void;
}) {
  const row = "flex min-h-9 items-center gap-2.5 py-0.5 pr-2 pl-3";
  const name = "flex min-w-0 flex-1 items-center gap-2.5 rounded-sm py-1.5 text-left font-mono text-sm data-hovered:underline";
  return (
    <ul aria-label={`Entries of ${path}`} className="flex-1 text-sm">
      {path !== "/" ? (
        <li className={row}>
          <AriaButton
            className={name}
            onPress={() => {
              onOpen(parent(path));
            }}
          >
            <FolderIcon className="shrink-0 text-muted" /> ..
            <span className="sr-only">, one directory up</span>
          </AriaButton>
        </li>
      ) : null}
      {entries.length === 0 ? <li className="px-3 py-6 text-muted">Nothing here. Drop files to upload them.</li> : null}
      {[...entries].sort(order).map((entry) => (
        <li key={entry.path} className={cx(row, "hover:bg-[var(--slate-a2)]")}>
          {entry.type === "file" ? (
            <a href={contentUrl(at, entry.path)} download={entry.name} className={cx(name, "hover:underline")}>
              <FileIcon className="shrink-0 text-muted" />
              <span className="truncate">{entry.name}</span>
              <span className="sr-only">, download</span>
            </a>
          ) : entry.type === "other" ? (
            <span className={name}>
              <FileIcon className="shrink-0 text-faint" />
              <span className="truncate text-muted">{entry.name}</span>
            </span>
          ) : (
            <AriaButton
              className={name}
              onPress={() => {
                onOpen(entry.path);
              }}
            >
              <FolderIcon className={cx("shrink-0", entry.type === "dir" ? "text-accent-text" : "text-muted")} />
              <span className="truncate">{entry.name}</span>
              {entry.type === "symlink" ? <span className="font-sans text-xs text-muted">link</span> : null}
            </AriaButton>
          )}
          <span className="tabular shrink-0 text-xs text-muted">{entry.type === "file" ? bytes(entry.size) : ""}</span>
          <Menu
            label={`Actions for ${entry.name}`}
            entries={[
              entry.type === "dir"
                ? { type: "item", id: "archive", label: "Download as archive", onAction: () => { save(archiveUrl(at, entry.path), `${entry.name}.tar`); } }
                : {
                    type: "item",
                    id: "download",
                    label: "Download",
                    reason: entry.type === "other" ? "It is no ordinary file." : null,
                    onAction: () => { save(contentUrl(at, entry.path), entry.name); },
                  },
              { type: "item", id: "delete", label: "Delete", danger: true, onAction: () => { onDelete(entry); } },
            ]}
          >
            <IconButton label={`Actions for ${entry.name}`}>
              <MoreIcon />
            </IconButton>
          </Menu>
        </li>
      ))}
    </ul>
  );
}

function DirectoryForm({ at, path, onClose }: { at: Files; path: string; onClose: () => void }) {
  const [name, setName] = useState("");
  const make = useMutation({ mutationFn: () => work.makeDirectory(at, join(path, name.trim())), onSuccess: onClose });
  return (
    <Form
      className="flex flex-col gap-4"
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim() !== "" && !make.isPending) make.mutate();
      }}
    >
      <Field label="Name" value={name} onChange={setName} mono autoFocus autoComplete="off" description={`In ${path}`} />
      {make.isError ? <InlineError error={make.error} brief /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={make.isPending} pendingLabel="Creating" disabledReason={name.trim() === "" ? "Enter a name first." : null}>
          Create directory
        </Button>
      </DialogActions>
    </Form>
  );
}

function DeleteForm({ at, entry, onClose }: { at: Files; entry: FileEntry; onClose: () => void }) {
  const remove = useMutation({
    mutationFn: () => work.deleteFile(at, entry.path, entry.type === "dir"),
    onSuccess: onClose,
    onError: refused(`${entry.name} was not deleted`),
  });
  return (
    <>
      <p>
        <code className="font-mono text-sm break-all">{entry.path}</code>
        {entry.type === "dir" ? " is deleted with everything in it." : " is deleted."} This cannot be undone.
      </p>
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button
          kind="danger"
          isPending={remove.isPending}
          pendingLabel="Deleting"
          onPress={() => {
            remove.mutate();
          }}
        >
          Delete
        </Button>
      </DialogActions>
    </>
  );
}
