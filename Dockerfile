# The base is an argument, so that a site may use its own copy. The digest is that of the index for
# all platforms; `skopeo inspect --format '{{.Digest}}' docker://docker.io/library/node:TAG` prints
# that of another tag.
ARG NODE_IMAGE=node:26.11.1-bookworm-slim@sha256:86f07bc9c5dce4578cf37e5a418b7bfc7f817cda25cde66e2b66e95ed86c4567

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build
# The optional packages are copies of Node.js, which the base contains.
RUN npm ci --omit=dev --omit=optional

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="entrepot" \
      org.opencontainers.image.description="A pull-through caching mirror for container registries" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /opt/entrepot
COPY --from=build /build/package.json ./
COPY --from=build /build/node_modules node_modules
COPY --from=build /build/dist dist
COPY bin bin
COPY LICENSE deploy/container/health-check.js ./
# The user is of no other program; a new volume gets the folder's owner and mode.
RUN ln -s /opt/entrepot/bin/entrepot.cjs /usr/local/bin/entrepot && \
    install -d -o 65532 -g 65532 -m 0700 /var/lib/entrepot
USER 65532:65532
ENV NODE_ENV=production \
    MALLOC_ARENA_MAX=1 \
    ENTREPOT_LISTEN=0.0.0.0:5000 \
    ENTREPOT_OPERATOR__LISTEN=0.0.0.0:5001 \
    ENTREPOT_STORAGE__ROOT=/var/lib/entrepot
VOLUME /var/lib/entrepot
EXPOSE 5000 5001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["node", "/opt/entrepot/health-check.js"]
# Without a shell, which would not forward signals. The launcher replaces its own process.
ENTRYPOINT ["entrepot"]
CMD ["serve"]
