"""The status page: what the daemon shows of itself at `/`, from data to HTML, without templates, scripts of others or a build step."""
