/** Commands of other tools, and the commands that do the same here. */
export const ADVICE: readonly (readonly [words: string, advice: string])[] = [
  [
    "delete del remove rmi purge drop unlink",
    "'entrepot rm REF' removes an image from the cache",
  ],
  [
    "prune clean cleanup clear free garbage-collect autoclean",
    "'entrepot evict' frees space of the cache, and 'entrepot gc' that of hosted repositories",
  ],
  [
    "pull fetch get download sync mirror preload prefetch preheat cache add",
    "'entrepot warm REF...' fetches images into the cache, and 'entrepot warm FILE' those of a list",
  ],
  [
    "push upload publish",
    "images are pushed by engines, as in 'docker push HOST:PORT/local/team/app:1', to a registry under 'hosted' in the configuration",
  ],
  [
    "copy cp retag promote",
    "'entrepot tag SRC DST' gives a stored image a tag in a hosted repository, and 'entrepot warm REF...' fetches images into the cache",
  ],
  [
    "stats stat info top df du usage disk space ps health ping metrics",
    "'entrepot status' prints hits, space and upstreams, and 'entrepot ls' the size of each image",
  ],
  [
    "list images image ll search find catalog repositories repos tags",
    "'entrepot ls [PATTERN]' lists the images in the cache",
  ],
  [
    "show describe manifest manifests get-image history",
    "'entrepot inspect REF' shows an image and its parts",
  ],
  ["version", "'entrepot --version' prints the version"],
  [
    "login logout auth credentials",
    "credentials of an upstream are in the configuration, under 'upstreams.NAME.credentials'; 'entrepot passwd USER' makes a user of this mirror",
  ],
  [
    "user users adduser useradd htpasswd password",
    "'entrepot passwd USER' prints a line for the htpasswd file",
  ],
  [
    "save bundle pack archive",
    "'entrepot export REF... -o FILE.tar' writes images to an archive",
  ],
  [
    "load unpack restore",
    "'entrepot import FILE.tar' reads images from an archive",
  ],
  ["start run server daemon up registry", "'entrepot serve' runs the mirror"],
  [
    "stop down shutdown kill restart",
    "the mirror stops when its process receives SIGTERM, as from 'systemctl stop entrepot' or 'docker stop'",
  ],
  [
    "reload",
    "the mirror reads its configuration again when the file changes, or on SIGHUP",
  ],
  [
    "config configure validate test lint check env",
    "'entrepot check-config' prints the effective configuration, or every fault in it",
  ],
  [
    "fsck doctor repair verify-storage audit",
    "'entrepot scrub' verifies everything that is stored",
  ],
  [
    "migrate convert adopt",
    "'entrepot takeover DIR' takes over the storage of a Distribution registry",
  ],
  [
    "keep protect lock hold",
    "'entrepot pin REF' protects an image from eviction",
  ],
  [
    "unlock unprotect release",
    "'entrepot unpin REF' allows the eviction of an image again",
  ],
  [
    "update upgrade revalidate",
    "'entrepot refresh REF' fetches a tag from its upstream again",
  ],
  ["job tasks task progress", "'entrepot jobs' lists what runs"],
  [
    "missing misses denied requested",
    "'entrepot wishes' lists the names that were asked for and not available",
  ],
  [
    "setup install docker podman containerd k3s rke2 cri-o crio buildkit client",
    "'entrepot client-config ENGINE' prints the set-up of an engine",
  ],
  [
    "completions autocomplete",
    "'entrepot completion SHELL' prints the completion for a shell",
  ],
  [
    "cert certs certificate tls-cert selfsigned self-signed",
    "'entrepot tls self-signed --host NAME' writes a certificate",
  ],
  [
    "log logs",
    "the mirror logs to standard error, as in 'journalctl -u entrepot' or 'docker logs'",
  ],
];

/** Words that are not commands here, each with what to use instead. */
export const FOREIGN_WORDS: ReadonlyMap<string, string> = new Map(
  ADVICE.flatMap(([words, advice]) =>
    words.split(" ").map((word) => [word, advice] as const),
  ),
);
