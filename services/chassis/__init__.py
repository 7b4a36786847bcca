"""What every server stands on: settings, the gRPC server, the database, migrations, loops."""
