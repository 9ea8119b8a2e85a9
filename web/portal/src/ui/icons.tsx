import type { ReactNode, SVGProps } from "react";

type IconProps = SVGProps<SVGSVGElement>;

function Icon({ children, ...props }: IconProps & { children: ReactNode }) {
  return (
    <svg
      viewBox="0 0 16 16"
      width="16"
      height="16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.4"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
      focusable="false"
      {...props}
    >
      {children}
    </svg>
  );
}

export const MachinesIcon = (p: IconProps) => (
  <Icon {...p}>
    <rect x="2" y="2.5" width="12" height="4.5" rx="1.2" />
    <rect x="2" y="9" width="12" height="4.5" rx="1.2" />
    <path d="M4.75 4.75h.01M4.75 11.25h.01M8.5 4.75h3M8.5 11.25h3" />
  </Icon>
);
export const KeyIcon = (p: IconProps) => (
  <Icon {...p}>
    <circle cx="5.25" cy="10.75" r="2.75" />
    <path d="m7.2 8.8 5.8-5.8M10.75 5.25l2 2" />
  </Icon>
);
export const NodesIcon = (p: IconProps) => (
  <Icon {...p}>
    <rect x="5.5" y="1.75" width="5" height="4" rx="1" />
    <rect x="1.5" y="10.25" width="5" height="4" rx="1" />
    <rect x="9.5" y="10.25" width="5" height="4" rx="1" />
    <path d="M8 5.75V8M4 10.25V8h8v2.25" />
  </Icon>
);
export const AddressIcon = (p: IconProps) => (
  <Icon {...p}>
    <rect x="2" y="2" width="12" height="12" rx="1.5" />
    <path d="M2 6h12M2 10h12M6 2v12M10 2v12" />
  </Icon>
);
export const ActivityIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M1.75 8h2.75l2-5 3 10 2-5h2.75" />
  </Icon>
);
export const TraceIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M2 3.5h7M4.5 8h6.5M8 12.5h6" strokeWidth="2" />
  </Icon>
);
export const SearchIcon = (p: IconProps) => (
  <Icon {...p}>
    <circle cx="7" cy="7" r="4.5" />
    <path d="m10.5 10.5 3.25 3.25" />
  </Icon>
);
export const CopyIcon = (p: IconProps) => (
  <Icon {...p}>
    <rect x="5.5" y="5.5" width="8" height="8" rx="1.4" />
    <path d="M3.5 10.5h-.2A.8.8 0 0 1 2.5 9.7V3.3a.8.8 0 0 1 .8-.8h6.4a.8.8 0 0 1 .8.8v.2" />
  </Icon>
);
export const CheckIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="m3 8.5 3.25 3.25L13 4.75" strokeWidth="1.7" />
  </Icon>
);
export const CrossIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="m4 4 8 8M12 4l-8 8" strokeWidth="1.6" />
  </Icon>
);
export const MoreIcon = (p: IconProps) => (
  <Icon {...p} fill="currentColor" stroke="none">
    <circle cx="3.25" cy="8" r="1.25" />
    <circle cx="8" cy="8" r="1.25" />
    <circle cx="12.75" cy="8" r="1.25" />
  </Icon>
);
export const PlusIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M8 3v10M3 8h10" strokeWidth="1.6" />
  </Icon>
);
export const ChevronDown = (p: IconProps) => (
  <Icon {...p}>
    <path d="m4.5 6.25 3.5 3.5 3.5-3.5" />
  </Icon>
);
export const ChevronRight = (p: IconProps) => (
  <Icon {...p}>
    <path d="m6.25 4.5 3.5 3.5-3.5 3.5" />
  </Icon>
);
export const TerminalIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="m3 4.5 3.5 3.5L3 11.5M8.5 11.5H13" />
  </Icon>
);
export const DownloadIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M8 2.5v7.25M4.75 6.75 8 10l3.25-3.25M2.75 13.25h10.5" />
  </Icon>
);
export const LockIcon = (p: IconProps) => (
  <Icon {...p}>
    <rect x="3.25" y="7" width="9.5" height="6.5" rx="1.2" />
    <path d="M5.25 7V5.25a2.75 2.75 0 0 1 5.5 0V7" />
  </Icon>
);
export const UndoIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M3 6.5h6.25a3.25 3.25 0 0 1 0 6.5H6M5.75 3.75 3 6.5l2.75 2.75" />
  </Icon>
);
export const WarnIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M8 2.25 14.25 13.25H1.75ZM8 6.5v3M8 11.4h.01" />
  </Icon>
);
export const RefreshIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M13.25 8a5.25 5.25 0 1 1-1.6-3.75M13.5 2.25v3h-3" />
  </Icon>
);

/** The mark of the product. */
export const NimbusMark = (p: IconProps) => (
  <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false" {...p}>
    <rect width="24" height="24" rx="6" className="fill-accent" />
    <path
      d="M7.8 16.9h8.5a3.2 3.2 0 0 0 .5-6.4 4.95 4.95 0 0 0-9.5-1A3.75 3.75 0 0 0 7.8 16.9Z"
      fill="none"
      stroke="#fff"
      strokeWidth="1.7"
      strokeLinejoin="round"
    />
  </svg>
);

/** Simple drawn glyphs, not the vendors' logos. */
export function OsGlyph({ os, size = 20 }: { os: string; size?: number }) {
  if (os.startsWith("ubuntu")) {
    return (
      <svg viewBox="0 0 20 20" width={size} height={size} aria-hidden="true" focusable="false" className="shrink-0">
        <circle cx="10" cy="10" r="5.8" fill="none" stroke="var(--tomato-9)" strokeWidth="2.3" />
        {[0, 120, 240].map((turn) => (
          <circle
            key={turn}
            cx="10"
            cy="3"
            r="2.7"
            transform={`rotate(${turn + 30} 10 10)`}
            fill="var(--tomato-9)"
            stroke="var(--panel)"
            strokeWidth="1.3"
          />
        ))}
      </svg>
    );
  }
  if (os.startsWith("debian")) {
    return (
      <svg viewBox="0 0 20 20" width={size} height={size} aria-hidden="true" focusable="false" className="shrink-0">
        <path
          d="M11.1 10.9c-2.2.5-3.1-1.6-1.7-2.8 1.9-1.6 4.9.2 4.4 3.1-.5 3-4.3 4.3-7 2.4C3.600 11.400 4.100 6.100 7.500 4.100c2.900-1.700 6.300-.9 8 1.100"
          fill="none"
          stroke="light-dark(#c7184f, #ff6a9b)"
          strokeWidth="1.7"
          strokeLinecap="round"
        />
      </svg>
    );
  }
  return <TerminalIcon width={size} height={size} />;
}

export const SandboxIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M8 1.75 13.75 5v6L8 14.25 2.25 11V5ZM2.25 5 8 8.25 13.75 5M8 8.25v6" />
  </Icon>
);
export const ServiceIcon = (p: IconProps) => (
  <Icon {...p}>
    <circle cx="8" cy="8" r="2.25" />
    <path d="M8 1.75v4M8 10.25v4M1.75 8h4M10.25 8h4" />
  </Icon>
);
export const SessionIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M5.5 4.5h-1.25a3.5 3.5 0 0 0 0 7H5.5M10.5 4.5h1.25a3.5 3.5 0 0 1 0 7H10.5M5.5 8h5" />
  </Icon>
);
export const HostIcon = (p: IconProps) => (
  <Icon {...p}>
    <rect x="2" y="3" width="12" height="10" rx="1.4" />
    <path d="M5 6h.01M5 10h.01M8 6h3.25M8 10h3.25M2 8h12" />
  </Icon>
);
export const FolderIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M1.75 4.25a1 1 0 0 1 1-1h3l1.5 1.75h6a1 1 0 0 1 1 1v5.75a1 1 0 0 1-1 1H2.75a1 1 0 0 1-1-1Z" />
  </Icon>
);
export const FileIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M4 1.75h5l3.25 3.25v8.25a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V2.75a1 1 0 0 1 1-1ZM9 1.75v3.25h3.25" />
  </Icon>
);
export const UploadIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M8 10V2.75M4.75 6 8 2.75 11.25 6M2.75 13.25h10.5" />
  </Icon>
);
export const ExpandIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M9.5 2.5h4v4M13.5 2.5 9 7M6.5 13.5h-4v-4M2.5 13.5 7 9" />
  </Icon>
);
export const ClusterIcon = (p: IconProps) => (
  <Icon {...p}>
    <circle cx="8" cy="3.5" r="1.75" />
    <circle cx="3.5" cy="12" r="1.75" />
    <circle cx="12.5" cy="12" r="1.75" />
    <path d="M7.2 5.1 4.3 10.4M8.8 5.1l2.9 5.3M5.25 12h5.5" />
  </Icon>
);
export const GpuIcon = (p: IconProps) => (
  <Icon {...p}>
    <rect x="3.25" y="3.25" width="9.5" height="9.5" rx="1.4" />
    <path d="M6.25 6.25h3.5v3.5h-3.5zM5.5 1.5v1.75M10.5 1.5v1.75M5.5 12.75v1.75M10.5 12.75v1.75M1.5 5.5h1.75M1.5 10.5h1.75M12.75 5.5h1.75M12.75 10.5h1.75" />
  </Icon>
);
export const SettingsIcon = (p: IconProps) => (
  <Icon {...p}>
    <path d="M2 4.5h5.5M11.5 4.5H14M2 11.5h2.5M8.5 11.5H14" />
    <circle cx="9.5" cy="4.5" r="2" />
    <circle cx="6.5" cy="11.5" r="2" />
  </Icon>
);
