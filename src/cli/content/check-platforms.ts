import { PLATFORM_PATTERN } from "../../oci/platform.ts";
import { Failed } from "../images/image-backend.ts";

/** Checks the values of `--platform`. @throws Failed */
export function checkPlatforms(platforms: readonly string[]): void {
  const pattern = new RegExp(PLATFORM_PATTERN);
  const wrong = platforms.find((platform) => !pattern.test(platform));
  if (wrong === undefined) return;
  throw new Failed(
    2,
    `--platform: got ${wrong}; expected OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64`,
  );
}
