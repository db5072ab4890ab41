"""What Prometheus and Grafana show and watch: files made from the catalogue of metrics and the alert definitions."""
