"""What a lesson puts on the page: figures, tables and widgets. Nothing below it imports it."""
