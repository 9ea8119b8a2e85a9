import { useMemo, useState, type ReactNode } from "react";
import { Cell, Column, Row, Table, TableBody, TableHeader, type SortDescriptor } from "react-aria-components/Table";
import { Button } from "./button";
import { cx } from "./cx";
import { ChevronDown } from "./icons";

export interface ColumnDef<T> {
  id: string;
  header: string;
  /** Spoken, not shown. */
  hideHeader?: boolean;
  rowHeader?: boolean;
  sort?: (row: T) => string | number;
  cell: (row: T) => ReactNode;
  className?: string;
  /** Where the cell goes in the two-line row of a phone; left out there when absent. */
  phone?: "title" | "aside" | "line" | "end";
}

export interface DataTableProps<T> {
  label: string;
  rows: readonly T[];
  rowId: (row: T) => string;
  columns: readonly ColumnDef<T>[];
  empty: ReactNode;
  onOpen?: (row: T) => void;
  defaultSort?: SortDescriptor;
}

const PHONE: Record<NonNullable<ColumnDef<unknown>["phone"]>, string> = {
  title: "max-md:col-start-1 max-md:row-start-1 max-md:pb-0",
  aside: "max-md:col-start-2 max-md:row-start-1 max-md:pb-0 max-md:justify-self-end",
  line: "max-md:col-start-1 max-md:row-start-2 max-md:pt-0.5",
  end: "max-md:col-start-2 max-md:row-start-2 max-md:pt-0.5 max-md:justify-self-end",
};

const FIRST = 200;

function compare(a: string | number, b: string | number): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

export function DataTable<T extends object>({ label, rows, rowId, columns, empty, onOpen, defaultSort }: DataTableProps<T>) {
  const [sort, setSort] = useState<SortDescriptor | null>(defaultSort ?? null);
  const [all, setAll] = useState(false);

  const sorted = useMemo(() => {
    const by = columns.find((column) => column.id === sort?.column)?.sort;
    if (!by || !sort) return rows;
    const sign = sort.direction === "descending" ? -1 : 1;
    return [...rows].sort((a, b) => sign * compare(by(a), by(b)));
  }, [rows, columns, sort]);
  const shown = all ? sorted : sorted.slice(0, FIRST);

  return (
    <div className="overflow-x-auto">
      <Table
        aria-label={label}
        className="w-full border-separate border-spacing-0 text-sm max-md:block"
        {...(sort ? { sortDescriptor: sort } : {})}
        onSortChange={setSort}
        {...(onOpen
          ? {
              onRowAction: (key) => {
                const row = rows.find((candidate) => rowId(candidate) === key);
                if (row) onOpen(row);
              },
            }
          : {})}
      >
        <TableHeader className="max-md:sr-only">
          {columns.map((column) => (
            <Column
              key={column.id}
              id={column.id}
              isRowHeader={column.rowHeader ?? false}
              allowsSorting={column.sort !== undefined}
              className={cx(
                "h-9 border-b border-line bg-sunken px-3 text-left text-xs font-medium whitespace-nowrap text-muted first:pl-4 last:pr-4",
                column.sort && "cursor-pointer data-hovered:text-fg",
                column.className,
              )}
            >
              {({ sortDirection }) => (
                <span className="inline-flex items-center gap-1">
                  <span className={column.hideHeader ? "sr-only" : undefined}>{column.header}</span>
                  {sortDirection !== undefined ? (
                    <ChevronDown width={12} height={12} className={sortDirection === "ascending" ? "rotate-180" : undefined} />
                  ) : null}
                </span>
              )}
            </Column>
          ))}
        </TableHeader>
        <TableBody items={shown} dependencies={[columns]} renderEmptyState={() => empty} className="max-md:block">
          {(row) => (
            <Row
              id={rowId(row)}
              columns={[...columns]}
              className={cx(
                "group/row outline-none data-hovered:bg-[var(--slate-a2)] data-focus-visible:outline-2 data-focus-visible:-outline-offset-2 data-focus-visible:outline-[var(--indigo-8)]",
                onOpen && "cursor-pointer",
                "max-md:grid max-md:grid-cols-[minmax(0,1fr)_auto] max-md:items-center max-md:border-b max-md:border-line max-md:py-2.5 max-md:last:border-b-0",
              )}
            >
              {(column) => (
                <Cell
                  className={cx(
                    "h-11 border-b border-line px-3 outline-none first:pl-4 last:pr-4 group-last/row:border-b-0 data-focus-visible:outline-2 data-focus-visible:-outline-offset-2 data-focus-visible:outline-[var(--indigo-8)]",
                    "max-md:h-auto max-md:min-w-0 max-md:border-b-0 max-md:px-4",
                    column.phone ? PHONE[column.phone] : "max-md:hidden",
                    column.className,
                  )}
                >
                  {column.cell(row)}
                </Cell>
              )}
            </Row>
          )}
        </TableBody>
      </Table>
      {sorted.length > shown.length ? (
        <div className="border-t border-line p-3 text-center">
          <Button
            kind="quiet"
            onPress={() => {
              setAll(true);
            }}
          >
            Show all {sorted.length}
          </Button>
        </div>
      ) : null}
    </div>
  );
}
